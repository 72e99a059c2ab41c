// What is happening, in one sentence. A pure function of the frame and of what was told before it.
//
// The most important thing is told: what is broken, then what recovers, then what cannot be handled, then the weather.
// A sentence is a new one only when its substance changes: another subject, or a number that has doubled or halved.

import { count, lasting, listed, rate, some } from "./words.js";

/** What waits behind a service that came back is worth telling until it is fewer than this. */
const DRAINED = 25;
/** Lag that is worth a word, while everybody works. */
const QUEUE = 400;

/**
 * @param frame as the server sends it
 * @param before what this function returned for the frame before, or null
 * @returns {text, key, …}: `text` is the sentence, `key` its substance, the rest what has to be remembered
 */
export function narrate(frame, before = null) {
  const memory = remember(frame, before);
  const { key, text } = told(frame, memory);
  // The same substance: the same words, though the numbers have moved a little.
  return key === before?.key ? { ...memory, key, text: before.text } : { ...memory, key, text };
}

function remember({ services, orders }, before) {
  const down = services.filter(isDown).map(({ name }) => name);
  const lag = Object.fromEntries(services.map((service) => [service.name, service.lag]));
  // Who was down and has not caught up.
  const back = [...new Set([...(before?.back ?? []), ...(before?.down ?? [])])].filter(
    (name) => !down.includes(name) && lag[name] >= DRAINED,
  );
  const worst = Math.max(0, ...back.map((name) => Math.max(lag[name], before?.worst ?? 0)));
  // How fast placing usually is: what it was while nobody was down, slowly forgotten.
  const p99 = orders.placing_p99_ms;
  let usual = before?.usual ?? null;
  if (p99 != null && !down.length && !back.length) usual = usual == null ? p99 : usual + (p99 - usual) * 0.05;
  const raining = orders.placed_per_s >= 1;
  return { down, back, worst, usual, rained: raining || Boolean(before?.rained) };
}

function told(frame, memory) {
  const { services, orders, storm, drivers } = frame;
  const awake = services.reduce((sum, { workers }) => sum + workers, 0);
  const unit = services[0]?.unit === "pods" ? "pod" : "worker";
  const lag = Math.max(0, ...services.map((service) => service.lag));
  const dead = services.filter((service) => service.dead_letters);

  if (memory.down.length) {
    const names = listed(memory.down);
    const waiting = waitingOrders(frame, memory.down);
    const placing = placingNow(orders, memory.usual);
    const wait = waiting
      ? `${some(waiting, "order")} ${Math.round(waiting) === 1 ? "waits" : "wait"}`
      : "nothing waits yet";
    return {
      key: `down ${names} ${size(waiting)} ${placing.key}`,
      text: `${names} ${memory.down.length > 1 ? "are" : "is"} down: ${wait}, ${placing.text}.`,
    };
  }

  const slow = services.filter(({ state }) => state === "slowed");
  if (slow.length) {
    const names = listed(slow.map(({ name }) => name));
    const waiting = Math.max(...slow.map((service) => service.lag));
    const placing = placingNow(orders, memory.usual);
    const wait = waiting >= DRAINED ? `${some(waiting, "event")} wait at its door` : "it keeps up all the same";
    return {
      key: `slow ${names} ${size(waiting)} ${placing.key}`,
      text: `${names} is slow: ${wait}, ${placing.text}.`,
    };
  }

  if (memory.back.length) {
    const left = Math.max(...memory.back.map((name) => services.find((service) => service.name === name).lag));
    return {
      key: `back ${memory.back} ${size(left)}`,
      text:
        `${listed(memory.back)} ${memory.back.length > 1 ? "are" : "is"} back: ${some(left, "event")} ` +
        `${Math.round(left) === 1 ? "is" : "are"} left to catch up on, and nothing was lost.`,
    };
  }

  if (dead.length) {
    const letters = dead.reduce((sum, service) => sum + service.dead_letters, 0);
    const names = listed(dead.map(({ name }) => name));
    return {
      key: `dead ${names} ${letters}`,
      text:
        `${some(letters, "event")} could not be handled and ${letters === 1 ? "lies" : "lie"} in the dead letters of ` +
        `${names}; everything else goes on.`,
    };
  }

  if (frame.declining)
    return { key: "declining", text: "Every card is declined: orders are cancelled, and nobody is charged." };

  if (frame.drivers_off)
    return {
      key: `drivers ${size(orders.under_way)} ${drivers.free ? "free" : "none free"}`,
      text:
        `Half of the drivers went home: ${some(orders.under_way, "order")} under way, ` +
        `${drivers.free ? `${count(drivers.free)} drivers free` : "and nobody is free to ride"}.`,
    };

  const perSecond = orders.placed_per_s;
  if (perSecond >= 60) {
    const weather = perSecond >= 300 ? "It pours" : "It rains";
    const each = `${weather}: ${rate(perSecond)} orders a second`;
    const oldest = Math.max(0, ...services.map((service) => service.oldest_ms ?? 0));
    if (lag >= QUEUE)
      return {
        key: `queue ${weather} ${size(lag)} ${size(awake)}`,
        text:
          `${each}. Events queue up, the oldest for ${lasting(oldest)}; ` +
          `${some(awake, unit)} awake, nothing dropped.`,
      };
    return { key: `rain ${weather} ${size(awake)}`, text: `${each}, and ${some(awake, unit)} keep up.` };
  }

  if (lag >= QUEUE)
    return { key: `drain ${size(lag)}`, text: `The rain is over, and ${some(lag, "event")} are left to work off.` };

  if (perSecond >= 1)
    return {
      key: `calm ${storm ? 1 : 0}`,
      text: `A drizzle: ${rate(perSecond)} orders a second, and everybody keeps up.`,
    };

  if (orders.under_way > 0)
    return {
      key: `ending ${size(orders.under_way)}`,
      text:
        `Nobody orders any more; ${some(orders.under_way, "order")} ` +
        `${orders.under_way === 1 ? "is" : "are"} still under way.`,
    };

  const rested = awake === 0 ? "Everybody sleeps" : "It is quiet";
  return {
    key: rested,
    text: memory.rained ? `${rested}: every order has reached its end.` : `${rested}. Make it rain.`,
  };
}

const isDown = ({ state }) => state === "killed" || state === "stopped";

/** Orders that wait for those who are down: no more than they have not heard of, no more than are under way. */
function waitingOrders({ services, orders }, down) {
  const unheard = services.filter(({ name }) => down.includes(name)).reduce((most, { lag }) => Math.max(most, lag), 0);
  return Math.min(unheard, orders.under_way);
}

function placingNow({ placed_per_s: perSecond, placing_p99_ms: p99 }, usual) {
  if (p99 == null || perSecond < 0.5) return { key: "nobody", text: "and nobody places any at the moment" };
  if (usual == null) return { key: "unknown", text: `placing one takes ${lasting(p99)}` };
  if (p99 <= usual * 1.5 + 15) return { key: "fast", text: "placing orders is as fast as before" };
  return { key: "slower", text: `placing one takes ${lasting(p99)} now` };
}

/** Numbers of about the same size: 0, 1, 2–3, 4–7, 8–15 … */
const size = (n) => (n < 1 ? 0 : Math.floor(Math.log2(n)) + 1);
