// How numbers, times and names are said. Pure functions: everything that the page writes passes through here.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const currencies = new Map();

export const NOTHING = "–";

/** 1,234 */
export const count = (n) => (n == null ? NOTHING : grouped.format(n));

/** 999, 1.2k, 35k, 1.4M: as wide as a label on a nerve may be. */
export function short(n) {
  if (n < 999.5) return String(Math.round(n));
  if (n < 9950) return `${(n / 1000).toFixed(1)}k`;
  if (n < 999500) return `${Math.round(n / 1000)}k`;
  return `${(n / 1e6).toFixed(1)}M`;
}

/** 0.4, 12, 813: events a second. */
export const rate = (n) => (n == null ? NOTHING : n > 0 && n < 9.95 ? n.toFixed(1) : count(n));

/** 3.1 ms, 420 ms, 2.2 s, 3 min 20 s */
export function lasting(ms) {
  if (ms == null) return NOTHING;
  if (ms < 0.05) return "0 ms";
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** One order, two orders. */
export const some = (n, one, many = `${one}s`) => `${count(n)} ${Math.round(n) === 1 ? one : many}`;

/** 1950 EUR cents as €19.50. Amounts are in minor units, and how many those are the currency knows. */
export function money({ amount, currency }) {
  if (!currency) return NOTHING;
  try {
    let format = currencies.get(currency);
    if (!format) currencies.set(currency, (format = new Intl.NumberFormat("en", { style: "currency", currency })));
    return format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
  } catch {
    return `${amount} ${currency}`;
  }
}

/** dev.rainstorm.order.placed.v1 as order.placed */
export const eventName = (type) => type.replace(/^dev\.rainstorm\./, "").replace(/\.v\d+$/, "");

/** The service that says it: order.placed is the order's. */
export const speaker = (type) => eventName(type).split(".")[0];

/** 12:03:04.123 */
export function clock(iso) {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? NOTHING : at.toISOString().slice(11, 23);
}

/** The end of an id: UUIDv7s of one second all begin alike. */
export const shortId = (id) => (id && id.length > 12 ? `…${id.slice(-8)}` : (id ?? NOTHING));

/** out_for_delivery as "out for delivery" */
export const spaced = (word) => word.replaceAll("_", " ");

/** "a, b and c" */
export const listed = (words) =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
