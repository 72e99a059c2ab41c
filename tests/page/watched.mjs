// A browser page that is watched: whatever breaks the content security policy, asks another host for anything, or
// throws, fails the test. And the page as its reader sees it.
import { expect, test as base } from "@playwright/test";

export { expect };

export const test = base.extend({
  page: async ({ page, context }, use) => {
    const wrong = [];
    await context.exposeBinding("reportViolation", (_, what) => wrong.push(what));
    await context.addInitScript(() =>
      addEventListener("securitypolicyviolation", (event) =>
        window.reportViolation(`policy: ${event.violatedDirective} ${event.blockedURI}`),
      ),
    );
    page.on("pageerror", (error) => wrong.push(`thrown: ${error.stack}`));
    page.on(
      "console",
      (message) => /Content.Security.Policy|Refused to/i.test(message.text()) && wrong.push(message.text()),
    );
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (protocol !== "data:" && host !== new URL(page.url()).host && page.url() !== "about:blank")
        wrong.push(`asked ${request.url()}`);
    });
    await use(page);
    expect(wrong, "what the page must not do").toEqual([]);
  },
  see: async ({ page }, use) => use(new Sight(page)),
});

/** Numbers as the page shows them. */
class Sight {
  constructor(page) {
    this.page = page;
  }

  async number(id) {
    const text = await this.page.getByTestId(id).first().textContent();
    const [digits] = text.replaceAll(",", "").match(/[\d.]+/) ?? ["0"];
    return Number(digits);
  }

  /** A time in milliseconds: "18 ms", "2.2 s"; null if there is none. */
  async time(id) {
    const [, digits, unit] = (await this.page.getByTestId(id).textContent()).match(/^([\d.]+) (ms|s|min)/) ?? [];
    return digits ? Number(digits) * { ms: 1, s: 1000, min: 60_000 }[unit] : null;
  }

  async sum(what, names = ["order", "payment", "kitchen", "delivery", "query"]) {
    const numbers = await Promise.all(names.map((name) => this.number(`${name}-${what}`)));
    return numbers.reduce((sum, n) => sum + n, 0);
  }

  narration() {
    return this.page.getByTestId("narration");
  }
}
