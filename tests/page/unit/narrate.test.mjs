import assert from "node:assert/strict";
import { test } from "node:test";
import { narrate } from "../../../services/query/page/narrate.js";

test("while payment is down, it tells who waits and that placing is as fast as before", () => {
  const told = narrate(down("payment", 312), narrate(raining()));
  assert.equal(told.text, "payment is down: 312 orders wait, placing orders is as fast as before.");
});

test("placing that has become slow is told with its time", () => {
  const told = narrate(down("payment", 312, { placing_p99_ms: 900 }), narrate(raining()));
  assert.equal(told.text, "payment is down: 312 orders wait, placing one takes 900 ms now.");
});

test("what was usual before is not known to somebody who has just arrived", () => {
  assert.equal(narrate(down("payment", 312)).text, "payment is down: 312 orders wait, placing one takes 18 ms.");
});

test("no more orders wait than are under way, and where nobody orders that is said", () => {
  const frame = down("kitchen", 900, { under_way: 1, placed_per_s: 0, placing_p99_ms: null });
  assert.equal(narrate(frame).text, "kitchen is down: 1 order waits, and nobody places any at the moment.");
});

test("two that are down are told together, and a stopped one is down as well", () => {
  const frame = raining();
  service(frame, "kitchen").state = "stopped";
  service(frame, "delivery").state = "killed";
  assert.match(narrate(frame, narrate(raining())).text, /^kitchen and delivery are down: 3 orders wait, placing/);
});

test("the same substance keeps its words, a doubled number gets new ones", () => {
  const first = narrate(down("kitchen", 300), narrate(raining()));
  const little = narrate(down("kitchen", 310), first);
  assert.equal(little.text, first.text);
  const much = narrate(down("kitchen", 700), little);
  assert.match(much.text, /700 orders wait/);
});

test("whoever comes back is accompanied until nothing is left", () => {
  const broken = narrate(down("kitchen", 5000), narrate(raining()));
  const frame = raining();
  service(frame, "kitchen").lag = 4000;
  const back = narrate(frame, broken);
  assert.equal(back.text, "kitchen is back: 4,000 events are left to catch up on, and nothing was lost.");
  assert.match(narrate(raining(), back).text, /^It pours/);
});

test("a slow service is told of", () => {
  const frame = raining();
  Object.assign(service(frame, "delivery"), { state: "slowed", lag: 2000 });
  assert.equal(
    narrate(frame, narrate(raining())).text,
    "delivery is slow: 2,000 events wait at its door, placing orders is as fast as before.",
  );
});

test("dead letters are told with their place", () => {
  const frame = raining();
  service(frame, "payment").dead_letters = 1;
  assert.equal(
    narrate(frame).text,
    "1 event could not be handled and lies in the dead letters of payment; everything else goes on.",
  );
});

test("cards and drivers", () => {
  assert.match(narrate({ ...raining(), declining: true }).text, /^Every card is declined/);
  assert.equal(
    narrate({ ...raining(), drivers_off: true, drivers: { on_shift: 150, free: 0 } }).text,
    "Half of the drivers went home: 500 orders under way, and nobody is free to ride.",
  );
});

test("the weather, from rain to sleep", () => {
  assert.equal(narrate(raining()).text, "It pours: 1,000 orders a second, and 15 workers keep up.");
  const queue = raining();
  Object.assign(service(queue, "delivery"), { lag: 3000, oldest_ms: 450 });
  assert.match(narrate(queue).text, /Events queue up, the oldest for 450 ms; 15 workers awake, nothing dropped\.$/);
  assert.equal(narrate(raining({ placed_per_s: 20 })).text, "A drizzle: 20 orders a second, and everybody keeps up.");
  const over = raining({ placed_per_s: 0 });
  assert.equal(narrate(over, narrate(raining())).text, "Nobody orders any more; 500 orders are still under way.");
  const asleep = raining({ placed_per_s: 0, under_way: 0 });
  for (const one of asleep.services) one.workers = 0;
  assert.equal(narrate(asleep).text, "Everybody sleeps. Make it rain.");
  assert.equal(
    narrate(asleep, narrate(over, narrate(raining()))).text,
    "Everybody sleeps: every order has reached its end.",
  );
});

test("it changes nothing that it was given", () => {
  const [frame, before] = [deepFreeze(down("kitchen", 40)), deepFreeze(narrate(raining()))];
  assert.deepEqual(narrate(frame, before), narrate(frame, before));
});

function raining(orders = {}) {
  const services = ["order", "payment", "kitchen", "delivery", "query"].map((name) => ({
    name,
    state: "awake",
    workers: 3,
    most: 12,
    lag: 3,
    oldest_ms: 2,
    dead_letters: 0,
  }));
  return {
    services,
    declining: false,
    drivers_off: false,
    drivers: { on_shift: 300, free: 20 },
    storm: null,
    orders: { placed_per_s: 1000, placing_p99_ms: 18, under_way: 500, ...orders },
  };
}

function down(name, lag, orders = {}) {
  const frame = raining({ under_way: 5000, ...orders });
  Object.assign(service(frame, name), { state: "killed", workers: 0, lag });
  return frame;
}

function service({ services }, name) {
  return services.find((service) => service.name === name);
}

function deepFreeze(thing) {
  for (const part of Object.values(thing)) if (typeof part === "object" && part) deepFreeze(part);
  return Object.freeze(thing);
}
