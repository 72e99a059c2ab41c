import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { nerve, organs } from "../../../services/query/page/anatomy.js";
import { Pulses } from "../../../services/query/page/pulses.js";
import { Ring, plannedAt, roundUp } from "../../../services/query/page/ring.js";
import { waterfall } from "../../../services/query/page/waterfall.js";
import * as words from "../../../services/query/page/words.js";
import { World } from "../mock.mjs";

const NAMES = ["order", "payment", "kitchen", "delivery", "query"];
const STAGES = [
  [340, 450],
  [700, 500],
  [980, 625],
  [1300, 800],
];

test("organs lie apart from each other and inside the stage, however small that is", () => {
  for (const [width, height] of STAGES) {
    const places = Object.values(organs(width, height, NAMES));
    for (const a of places) {
      assert.ok(a.x - a.r >= 0 && a.x + a.r <= width && a.y - a.r >= 0 && a.y + a.r <= height, `${width}×${height}`);
      for (const b of places)
        assert.ok(a === b || Math.hypot(a.x - b.x, a.y - b.y) > a.r + b.r + 8, `${width}×${height}`);
    }
  }
});

test("a nerve runs from one skin to the other, and through nobody else", () => {
  for (const [width, height] of STAGES) {
    const places = organs(width, height, NAMES);
    for (const { from, to } of new World().nerves) {
      const { xs, ys } = nerve(from, to, places);
      const far = (name, i) => Math.hypot(xs[i] - places[name].x, ys[i] - places[name].y) - places[name].r;
      assert.ok(Math.abs(far(from, 0)) < 1 && Math.abs(far(to, xs.length - 1) - 5) < 1, `${from} → ${to}`);
      for (const other of NAMES) {
        if (other === from || other === to) continue;
        for (let i = 0; i < xs.length; i++)
          assert.ok(far(other, i) > 0, `${from} → ${to} runs through ${other} at ${width}×${height}`);
      }
    }
  }
});

test("however many events there are, at most 150 pulses are alive, and all of them end", () => {
  const pulses = new Pulses();
  const samples = Array.from({ length: 40 }, () => ({ type: "order.placed" }));
  for (let i = 0; i < 100; i++) pulses.send(samples, () => [0, 1, 2], i, 200);
  assert.equal(pulses.alive, 150);
  const line = { xs: new Float32Array(49), ys: new Float32Array(49), queue: 0, pulse: 5, from: "order" };
  pulses.draw({ drawImage() {} }, 10_000, [line, line, line], { order: null });
  assert.equal(pulses.alive, 0);
});

test("a ring forgets the oldest", () => {
  const ring = new Ring(3, ["a"]);
  for (let i = 1; i <= 5; i++) ring.push(i, { a: i * 10 });
  const seen = [];
  ring.each(0, "a", (at, value) => seen.push([at, value]));
  assert.deepEqual(seen, [
    [3, 30],
    [4, 40],
    [5, 50],
  ]);
  assert.equal(ring.most(0, "a"), 50);
});

test("a plan holds until its next line", () => {
  const planned = [
    [0, 40],
    [10, 400],
    [25, 40],
    [35, 0],
  ];
  assert.deepEqual(
    [0, 9.9, 10, 24, 30, 99].map((second) => plannedAt(planned, second)),
    [40, 40, 400, 400, 40, 0],
  );
});

test("an axis ends at a round number", () => {
  assert.deepEqual([0, 1, 14, 16, 420, 1000].map(roundUp), [1, 1, 15, 20, 500, 1000]);
});

test("a step of a waterfall begins where its cause ended", () => {
  const at = (ms) => new Date(Date.UTC(2026, 10, 27) + ms).toISOString();
  const step = (id, type, ms, cause, latency) => ({
    id,
    type: `dev.rainstorm.${type}.v1`,
    time: at(ms),
    causation_id: cause,
    latency_ms: latency,
  });
  const [placed, paid, done] = waterfall([
    step("a", "order.placed", 0, "command", null),
    step("b", "payment.confirmed", 25, "a", 25),
    step("c", "order.completed", 100, "b", 75),
  ]);
  assert.deepEqual([placed.because, placed.from, placed.width], [null, 0, 0]);
  assert.deepEqual(
    [paid.name, paid.because, paid.from, paid.width, paid.took],
    ["payment.confirmed", "order.placed", 0, 0.25, 25],
  );
  assert.deepEqual([done.from, done.width, done.since], [0.25, 0.75, 100]);
});

test("numbers, times and money are said as people say them", () => {
  assert.deepEqual([0, 999, 1234, 35_200, 1.4e6].map(words.short), ["0", "999", "1.2k", "35k", "1.4M"]);
  assert.deepEqual([null, 0, 3.14, 420, 2200, 200_000, 4e6].map(words.lasting), [
    "–",
    "0 ms",
    "3.1 ms",
    "420 ms",
    "2.2 s",
    "3 min 20 s",
    "1 h 6 min",
  ]);
  assert.deepEqual(
    [
      [1950, "EUR"],
      [1950, "JPY"],
      [5, "what"],
    ].map(([amount, currency]) => words.money({ amount, currency })),
    ["€19.50", "¥1,950", "5 what"],
  );
  assert.equal(words.eventName("dev.rainstorm.order.placed.v1"), "order.placed");
  assert.equal(words.listed(["a", "b", "c"]), "a, b and c");
  assert.deepEqual([words.some(1, "order"), words.some(2000, "order")], ["1 order", "2,000 orders"]);
});

test("whatever is written can be read, by night and by day", () => {
  // axe can't tell, as there is a gradient behind everything.
  const style = readFileSync(new URL("../../../services/query/page/style.css", import.meta.url), "utf8");
  const [night, day] = [...style.matchAll(/:root \{([^}]+)\}/g)].map(([, block]) =>
    Object.fromEntries([...block.matchAll(/--([a-z]+): (#[0-9a-f]{6});/g)].map(([, name, colour]) => [name, colour])),
  );
  for (const [when, colours] of Object.entries({ night, day: { ...night, ...day } })) {
    for (const text of ["ink", "quiet", "order", "payment", "kitchen", "delivery", "query", "dead"]) {
      for (const behind of ["sky", "deep", "flesh", "raised"]) {
        const contrast = contrastOf(colours[text], colours[behind]);
        assert.ok(contrast >= 4.5, `${text} on ${behind} by ${when}: ${contrast.toFixed(2)}`);
      }
    }
    // In an organ: over its own colour, as strong as that becomes.
    for (const own of ["order", "payment", "kitchen", "delivery", "query"]) {
      const behind = mixed(colours[own], colours.flesh, 0.27);
      assert.ok(contrastOf(colours.ink, behind) >= 4.5, `in ${own} by ${when}`);
    }
  }
});

test("every file of the page is one that the server serves, and says at its top what it is", () => {
  const folder = new URL("../../../services/query/page/", import.meta.url);
  for (const name of readdirSync(folder)) {
    assert.match(name, /^[a-z]+\.(html|js|css|svg)$/);
    const text = readFileSync(new URL(name, folder), "utf8");
    if (name.endsWith(".js")) assert.match(text, /^\/\/ [A-Z]/, name);
    if (name.endsWith(".html")) assert.doesNotMatch(text, /<script(?![^>]+src=)|\son[a-z]+=|style=/);
    assert.doesNotMatch(text.replaceAll("http://www.w3.org/2000/svg", ""), /(https?:)?\/\/[a-z0-9-]+\.[a-z]/i, name);
  }
});

/** Contrast by WCAG 2.2. */
function contrastOf(a, b) {
  const light = (colour) => {
    const [r, g, blue] = channels(colour).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * blue;
  };
  const [brighter, darker] = [light(a), light(b)].toSorted((one, other) => other - one);
  return (brighter + 0.05) / (darker + 0.05);
}

function mixed(colour, behind, share) {
  const under = channels(behind);
  const parts = channels(colour).map((part, i) => Math.round(part * share + under[i] * (1 - share)));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}
