// What all orders so far have in common, read from /stats every few seconds.

import { get } from "./ask.js";
import { drawMinutes } from "./charts.js";
import { $, keyed, mark, say } from "./dom.js";
import { bar, setBar } from "./panel.js";
import { count, lasting, listed, money, spaced } from "./words.js";

const EVERY = 4000;

export async function keepStats() {
  if (!document.hidden)
    await get("/stats")
      .then(write)
      .catch(() => {});
  setTimeout(keepStats, EVERY);
}

function write({ minutes, funnel, revenue, legs }) {
  const placed = Math.max(1, funnel.placed);
  keyed(
    $("#funnel"),
    Object.entries(funnel),
    ([status]) => status,
    bar,
    (row, [status, n]) => setBar(row, spaced(status), count(n), n / placed),
  );
  const slowest = Math.max(1, ...legs.map(({ p99_ms: p99 }) => p99 ?? 0));
  keyed(
    $("#legs"),
    legs,
    ({ leg }) => leg,
    bar,
    (row, { leg, p50_ms: p50, p99_ms: p99 }) => setBar(row, leg, `${lasting(p50)} / ${lasting(p99)}`, p99 / slowest),
  );
  drawMinutes($("#minutes"), minutes);
  const last = minutes.at(-1);
  if (last)
    mark($("#minutes"), "aria-label", `Orders placed a minute over the last hour; the newest: ${count(last.placed)}`);
  const taken = revenue.map(
    ({ currency, captured, refunded }) =>
      `${money({ amount: captured, currency })} taken and ${money({ amount: refunded, currency })} given back`,
  );
  say($("#revenue"), taken.length ? `${listed(taken)}.` : "");
}
