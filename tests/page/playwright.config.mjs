// Chromium is the system's: CHROMIUM names it, or it is found in PATH.
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { defineConfig } from "@playwright/test";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const found = (process.env.PATH ?? "")
  .split(delimiter)
  .flatMap((folder) => names.map((name) => join(folder, name)))
  .find(isProgram);

function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export default defineConfig({
  testDir: ".",
  outputDir: "test-results",
  workers: 1,
  retries: 0,
  forbidOnly: Boolean(process.env.CI),
  reporter: "list",
  timeout: 120_000,
  expect: { timeout: 20_000 },
  use: {
    viewport: { width: 1440, height: 900 },
    colorScheme: "dark",
    launchOptions: { executablePath: process.env.CHROMIUM || found },
  },
  projects: [
    { name: "mock", testMatch: "mock.spec.mjs" },
    { name: "demo", testMatch: "demo.spec.mjs", timeout: 420_000, expect: { timeout: 60_000 } },
  ],
});
