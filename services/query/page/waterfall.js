// The route of an order as a waterfall. Pure: it is made of the timeline alone, as each step says what caused it.

import { eventName } from "./words.js";

/** Where each step of a timeline stands in its waterfall: from what caused it to itself, as shares of the whole. */
export function waterfall(timeline) {
  const at = new Map(timeline.map((step) => [step.id, Date.parse(step.time)]));
  const names = new Map(timeline.map((step) => [step.id, eventName(step.type)]));
  const times = [...at.values()].filter((time) => !Number.isNaN(time));
  const begin = Math.min(...times);
  const whole = Math.max(1, Math.max(...times) - begin);
  return timeline.map((step) => {
    const end = at.get(step.id);
    const start = at.get(step.causation_id) ?? end;
    return {
      id: step.id,
      name: eventName(step.type),
      because: names.get(step.causation_id) ?? null,
      took: step.latency_ms,
      since: end - begin,
      from: (Math.min(start, end) - begin) / whole,
      width: Math.abs(end - start) / whole,
    };
  });
}
