// A server that plays a recorded storm to the page: the same frames as the query service's, out of a small model of
// queues and workers, so that the page can be looked at and tested without anything built.
//
//     node tests/page/mock.mjs [--port N] [--scene calm|storm|failure|recorded|asleep] [--speed N] [--manual]
//
// `recorded` is the whole story: calm, a storm of 1,000 orders a second, the kitchen killed in its midst, revived,
// drained, calm again; and from the beginning. `speed` plays it faster. What the operator asks for happens.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const PAGE = fileURLToPath(new URL("../../services/query/page/", import.meta.url));
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const TYPES = { html: "text/html; charset=utf-8", js: "text/javascript", css: "text/css", svg: "image/svg+xml" };
const TICK = 200;
const PARTITIONS = 12;
const MOST = 12;
const CAN = [
  "storm",
  "orders",
  "drivers",
  "cards",
  "poison",
  "dead_letters",
  "stop",
  "slow",
  "kill",
  "start",
  "pack",
  "deliver",
];

const TOPICS = { order: "orders", payment: "payments", kitchen: "kitchen", delivery: "deliveries" };
const HEARS = {
  order: ["kitchen", "payment", "delivery"],
  payment: ["order"],
  kitchen: ["order", "payment", "kitchen"],
  delivery: ["order", "kitchen", "delivery"],
  query: ["order", "payment", "kitchen", "delivery"],
};
/** Events that one worker handles a second. */
const STRENGTH = { order: 900, payment: 420, kitchen: 620, delivery: 800, query: 1500 };
const SAYS = {
  order: ["order.placed", "order.completed"],
  payment: ["payment.confirmed"],
  kitchen: ["kitchen.ticket_created", "kitchen.ticket_accepted", "kitchen.order_packed"],
  delivery: [
    "delivery.requested",
    "delivery.driver_engaged",
    "delivery.driver_assigned",
    "delivery.out_for_delivery",
    "delivery.delivered",
    "delivery.driver_released",
  ],
};
/** An order's story: milliseconds since it was placed, event, and which step of the story caused it. */
const STORY = [
  [0, "order.placed", null],
  [8, "kitchen.ticket_created", 0],
  [9, "delivery.requested", 0],
  [31, "payment.confirmed", 0],
  [52, "kitchen.ticket_accepted", 3],
  [310, "kitchen.order_packed", 4],
  [330, "delivery.order_ready", 5],
  [334, "delivery.driver_assigned", 6],
  [335, "delivery.out_for_delivery", 6],
  [910, "delivery.delivered", 8],
  [934, "order.completed", 9],
];
const STATUS = {
  "order.placed": "placed",
  "payment.confirmed": "paid",
  "kitchen.ticket_accepted": "cooking",
  "kitchen.order_packed": "packed",
  "delivery.out_for_delivery": "out_for_delivery",
  "delivery.delivered": "delivered",
  "order.completed": "completed",
  "payment.declined": "placed",
  "order.cancelled": "cancelled",
};
const SOURCES = { order: "/orders", payment: "/payments", kitchen: "/kitchen", delivery: "/deliveries" };
const KITCHENS = [
  {
    kitchen_id: "luigis",
    name: "Luigi's",
    open: true,
    currency: "EUR",
    menu: [
      { item_id: "margherita", name: "Pizza Margherita", price: 950, available: true },
      { item_id: "tiramisu", name: "Tiramisù", price: 590, available: true },
    ],
  },
  {
    kitchen_id: "golden-wok",
    name: "Golden Wok",
    open: true,
    currency: "EUR",
    menu: [
      { item_id: "mapo-tofu", name: "Mapo tofu", price: 1090, available: true },
      { item_id: "kung-pao", name: "Kung pao chicken", price: 1290, available: false },
    ],
  },
];
const STORM = [
  [0, 40],
  [4, 250],
  [8, 1000],
  [34, 250],
  [40, 40],
];

/** The model: fluid runs from queue to queue, and workers wake for it. */
export class World {
  constructor({ scene = "recorded", manual = false, seed = 7 } = {}) {
    Object.assign(this, { manual, seed, now: Date.parse("2026-11-27T00:00:00Z"), second: 0, placed: 0, completed: 0 });
    Object.assign(this, {
      can: CAN,
      cancelled: 0,
      declining: false,
      driversOff: false,
      numbers: 0,
      orders: new Map(),
      minutes: [],
    });
    this.services = Object.fromEntries(
      Object.keys(HEARS).map((name) => [
        name,
        {
          name,
          state: "asleep",
          workers: 0,
          wakings: 0,
          rate: 0,
          handled: 0,
          retried: 0,
          letters: [],
          errors: [],
          resting: 0,
        },
      ]),
    );
    this.nerves = Object.entries(HEARS).flatMap(([to, heard]) =>
      heard.map((from) => ({ from, to, lag: 0, fresh: 0, since: null })),
    );
    this.play(scene);
  }

  play(scene) {
    this.scene = scene;
    this.began = this.second;
    this.storm = null;
    if (scene !== "asleep") this.weather("calm");
    if (scene === "storm" || scene === "failure") this.weather("storm", [[0, 1000]]);
    if (scene === "failure") this.set("kitchen", "kill");
    else for (const name in this.services) this.set(name, "start");
  }

  random() {
    this.seed = (this.seed * 1664525 + 1013904223) % 2 ** 32;
    return this.seed / 2 ** 32;
  }

  weather(weather, curve = STORM) {
    const rate = this.storm ? this.rain() : 20;
    const planned = {
      calm: [[0, 20]],
      storm: curve,
      tenfold: [
        [0, rate * 10],
        [20, rate],
      ],
      stop: null,
    }[weather];
    if (planned === undefined) return false;
    this.storm = planned && { planned, began: this.second };
    return true;
  }

  rain() {
    if (!this.storm) return 0;
    const second = this.second - this.storm.began;
    return this.storm.planned.filter(([from]) => from <= second).at(-1)[1];
  }

  set(name, action) {
    const service = this.services[name];
    const state = { kill: "killed", stop: "stopped", slow: "slowed", start: "awake" }[action];
    if (!service || !state) return false;
    if (!["killed", "stopped"].includes(state)) service.resting = 0;
    else service.workers = 0;
    service.state = state;
    return true;
  }

  /** The recorded story's turns. */
  direct() {
    if (this.scene !== "recorded") return;
    const turns = [
      [8, () => this.weather("storm")],
      [22, () => this.set("kitchen", "kill")],
      [36, () => this.set("kitchen", "start")],
      [50, () => this.weather("calm")],
      [66, () => this.weather("stop")],
      [74, () => this.play("recorded")],
    ];
    const [before, after] = [this.second - TICK / 1000 - this.began, this.second - this.began];
    for (const [at, turn] of turns) if (before < at && after >= at) turn();
  }

  poison() {
    this.letter(
      "payment",
      "event poison-" + ++this.numbers + ": dev.rainstorm.order.placed.v9 is a version that nobody here knows",
    );
  }

  letter(name, text) {
    const service = this.services[name];
    service.letters.push({ text, attempts: 1 });
    this.error(service, text);
  }

  error(service, text) {
    service.errors.unshift({ at: new Date(this.now).toISOString(), text });
    service.errors.length = Math.min(5, service.errors.length);
  }

  lettersDo(what) {
    for (const service of Object.values(this.services)) {
      if (what === "discard") service.letters = [];
      // Nothing was mended, so they fail again.
      else for (const letter of service.letters) this.error(service, `${letter.text} (attempt ${++letter.attempts})`);
    }
  }

  /** Some of the orders are told one by one. */
  order({ kitchen_id: kitchen, item_id: item, quantity, card }) {
    const id = `019a${(++this.numbers).toString(16).padStart(4, "0")}-0000-7000-8000-${Math.floor(
      this.random() * 2 ** 40,
    )
      .toString(16)
      .padStart(12, "0")}`;
    const dish = KITCHENS.find(({ kitchen_id: id }) => id === kitchen).menu.find(({ item_id: id }) => id === item);
    this.orders.set(id, { id, kitchen, quantity, dish, card, at: this.now, far: 0, waited: 0 });
    if (this.orders.size > 200) this.orders.delete(this.orders.keys().next().value);
    return id;
  }

  step() {
    const seconds = TICK / 1000;
    this.second += seconds;
    this.now += TICK;
    this.direct();
    this.counts = {};
    const said = { order: 0, payment: 0, kitchen: 0, delivery: 0, query: 0 };
    const placed = Math.round(this.rain() * seconds * (0.9 + this.random() * 0.2));
    this.placed += placed;
    this.tell(said, "order", 1, placed);

    for (const service of Object.values(this.services)) {
      const nerves = this.nerves.filter(({ to }) => to === service.name);
      const lag = nerves.reduce((sum, nerve) => sum + nerve.lag, 0);
      this.wake(service, lag - nerves.reduce((sum, { fresh }) => sum + fresh * 0.7, 0));
      const strength = service.workers * STRENGTH[service.name] * (service.state === "slowed" ? 0.04 : 1) * seconds;
      const share = lag ? Math.min(1, strength / lag) : 0;
      let handled = 0;
      for (const nerve of nerves) {
        const did = Math.ceil(nerve.lag * share);
        nerve.lag -= did;
        if (!nerve.lag) nerve.since = null;
        else if (share > 0) nerve.since = Math.max(nerve.since, this.now - (nerve.lag / Math.max(1, did)) * TICK);
        handled += did;
        this.react(said, service.name, nerve.from, did);
      }
      service.handled += handled;
      service.rate = service.rate * 0.7 + (handled / seconds) * 0.3;
      if (service.rate < 0.05) service.rate = 0;
    }
    for (const nerve of this.nerves) {
      if (said[nerve.from] && nerve.since === null) nerve.since = this.now;
      nerve.lag += said[nerve.from];
      // Of what was said in this step, most is heard in it, too.
      nerve.fresh = Math.floor(said[nerve.from] * (0.9 + this.random() * 0.1));
    }
    if ((placed && this.orders.size < 200) || (this.random() < 0.3 && placed)) {
      this.order({
        kitchen_id: "luigis",
        item_id: this.random() < 0.5 ? "margherita" : "tiramisu",
        quantity: 1,
        card: this.random() < 0.05 ? "tok_declined" : "tok_ok",
      });
    }
    for (const order of this.orders.values()) this.advance(order);
    const minute = Math.floor(this.now / 60_000);
    if (this.minutes.at(-1)?.minute !== minute) this.minutes.push({ minute, placed: 0, completed: 0 });
    if (this.minutes.length > 60) this.minutes.shift();
    this.minutes.at(-1).placed += placed;
    return this;
  }

  wake(service, lag) {
    if (service.state === "killed" || service.state === "stopped") return;
    const wanted = Math.min(MOST, Math.ceil(lag / 40));
    if (wanted > service.workers) {
      service.wakings += wanted - service.workers;
      service.workers = wanted;
      service.resting = 0;
    } else if (wanted < service.workers && ++service.resting > 6) {
      service.workers--;
      service.resting = 4;
    }
    if (service.state !== "slowed") service.state = service.workers ? "awake" : "asleep";
  }

  react(said, name, from, did) {
    if (name === "payment") this.tell(said, "payment", 1, Math.round(did / 2));
    if (name === "kitchen" && from === "order") this.tell(said, "kitchen", 1, Math.round(did / 2));
    if (name === "kitchen" && from === "payment") this.tell(said, "kitchen", 2, did);
    if (name === "delivery" && from === "order") this.tell(said, "delivery", 1, Math.round(did / 2));
    if (name === "delivery" && from === "kitchen") this.tell(said, "delivery", 5, Math.round(did / 3));
    if (name === "order" && from === "delivery") {
      const ended = Math.min(this.placed - this.completed, Math.ceil(did / 6));
      this.completed += ended;
      this.ended = ended;
      this.tell(said, "order", 1, ended);
    }
  }

  tell(said, name, each, times) {
    said[name] += each * times;
    const types = SAYS[name];
    for (let i = 0; i < each * times; i++) {
      const type = types[i % types.length];
      this.counts[type] = (this.counts[type] ?? 0) + 1;
    }
  }

  advance(order) {
    const kitchenDown = ["killed", "stopped"].includes(this.services.kitchen.state);
    const story = this.story(order);
    const [at, event] = story[order.far + 1] ?? [];
    if (event === undefined || order.at + at + order.waited > this.now) return;
    const waits =
      (kitchenDown && event.startsWith("kitchen.")) ||
      (this.manual &&
        ((event === "kitchen.order_packed" && !order.packed) || (event === "delivery.delivered" && !order.delivered)));
    if (waits) order.waited += TICK;
    else {
      order.far++;
      order.times = [...(order.times ?? [0]), at + order.waited];
      this.advance(order);
    }
  }

  story({ card }) {
    if (card !== "tok_declined" && !this.declining) return STORY;
    return [...STORY.slice(0, 3), [31, "payment.declined", 0], [48, "order.cancelled", 3]];
  }

  frame(interval) {
    const speed = this.rain();
    const open = this.nerves
      .map((nerve) => ({ ...nerve, lag: nerve.lag - nerve.fresh }))
      .map((nerve) => ({ ...nerve, since: nerve.lag ? nerve.since : null }));
    const kinds = Object.entries(this.counts);
    const samples = kinds
      .flatMap(([type, n]) => Array.from({ length: Math.min(n, Math.ceil(40 / kinds.length)) }, () => type))
      .slice(0, 40)
      .map((type) => ({
        id: `e${++this.numbers}`,
        type,
        subject: "s",
        order_id: [...this.orders.keys()].at(-1 - Math.floor(this.random() * 20)) ?? null,
        at: new Date(this.now).toISOString(),
      }));
    const spread = (lag) =>
      Array.from({ length: PARTITIONS }, (_, i) => Math.floor(lag / PARTITIONS) + (i < lag % PARTITIONS ? 1 : 0));
    const age = (since) => (since === null ? null : Math.round(this.now - since));
    return {
      at: new Date(this.now).toISOString(),
      interval_ms: interval,
      mode: "embedded",
      can: this.can,
      manual: { cooking: this.manual, riding: this.manual },
      declining: this.declining,
      drivers_off: this.driversOff,
      services: Object.values(this.services).map((service) => {
        const nerves = open.filter(({ to }) => to === service.name);
        const ages = nerves.map(({ since }) => age(since)).filter((ms) => ms !== null);
        return {
          name: service.name,
          topic: TOPICS[service.name] ?? null,
          state: service.state,
          workers: service.workers,
          most: MOST,
          unit: "workers",
          wakings: service.wakings,
          rate: service.rate,
          handled: service.handled,
          retried: service.retried,
          lag: nerves.reduce((sum, { lag }) => sum + lag, 0),
          oldest_ms: ages.length ? Math.max(...ages) : null,
          dead_letters: service.letters.length,
          errors: service.errors,
          start: {
            at: "2026-11-27T00:00:00Z",
            phases: [
              ["database", 12.5],
              ["topics", 3.1],
              ["ready", 20.4],
            ],
          },
        };
      }),
      nerves: open.map(({ from, to, lag, since }) => ({
        topic: TOPICS[from],
        from,
        to,
        lag,
        oldest_ms: age(since),
        partitions: spread(lag),
      })),
      events: this.counts,
      samples,
      storm: this.storm && {
        rate: speed,
        planned: this.storm.planned,
        second: this.second - this.storm.began,
        peak: Math.max(...this.storm.planned.map(([, rate]) => rate)),
      },
      orders: {
        placed_per_s: speed,
        completed_per_s: (this.ended ?? 0) * 5,
        cancelled_per_s: 0,
        placing_p50_ms: speed ? 2 + speed / 400 : null,
        placing_p99_ms: speed ? 9 + speed / 90 + this.random() * 3 : null,
        journey_p50_ms: speed ? 934 : null,
        journey_p99_ms: speed ? 1200 + open[4].lag : null,
        under_way: this.placed - this.completed - this.cancelled,
      },
      drivers: { on_shift: this.driversOff ? 150 : 300, free: Math.max(0, 211 - Math.round(speed / 5)) },
    };
  }

  details({ id, kitchen, quantity, dish, at, far, times = [0], card }) {
    const story = this.story({ card }).slice(0, far + 1);
    const time = (i) => new Date(at + times[i]).toISOString();
    const status = story
      .map(([, event]) => STATUS[event])
      .filter(Boolean)
      .at(-1);
    const total = { amount: dish.price * quantity, currency: "EUR" };
    const paid = story.some(([, event]) => event === "payment.confirmed");
    return {
      order_id: id,
      customer_id: "ada",
      kitchen_id: kitchen,
      status,
      total,
      placed_at: time(0),
      trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
      ended_at: ["completed", "cancelled"].includes(status) ? time(far) : null,
      since: time(far),
      sequence: 1,
      cancellation:
        status === "cancelled"
          ? { requested_at: null, refused_at: null, cancelled_at: time(far), reason: "payment_declined" }
          : null,
      items: [{ item_id: dish.item_id, name: dish.name, quantity, unit_price: dish.price }],
      money: {
        captured: { amount: paid ? total.amount : 0, currency: "EUR" },
        refunded: { amount: 0, currency: "EUR" },
      },
      timeline: story.map(([, event, cause], i) => ({
        id: `${id}-${i}`,
        type: `dev.rainstorm.${event}.v1`,
        source: SOURCES[event.split(".")[0]],
        subject: id,
        sequence: i + 1,
        time: time(i),
        causation_id: cause === null ? "command" : `${id}-${cause}`,
        latency_ms: cause === null ? null : times[i] - times[cause],
      })),
    };
  }
}

/** Starts a mock; {port, world, set(…), stop()}. */
export async function startMock({ port = 0, speed = 1, observed = true, ...how } = {}) {
  const world = new World(how);
  world.step();
  const state = { speed, observed, frozen: false };
  const watchers = new Set();
  let number = 0;
  const beat = () => {
    if (state.frozen) world.now += TICK;
    else {
      const frame = world.step().frame(TICK / state.speed);
      for (const watcher of watchers)
        watcher.write(`event: frame\nid: ${++number}\ndata: ${JSON.stringify(frame)}\n\n`);
    }
    timer = setTimeout(beat, TICK / state.speed);
  };
  let timer = setTimeout(beat, 0);

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://mock");
    const parts = url.pathname.split("/").slice(1);
    const json = (body, status = 200) =>
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    const problem = (status, detail) =>
      response
        .writeHead(status, { "content-type": "application/problem+json" })
        .end(JSON.stringify({ title: "no", status, detail }));
    const stream = () => response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    let body = "";
    for await (const chunk of request) body += chunk;
    if (request.method === "POST") return operate(world, parts.slice(1), JSON.parse(body || "{}"), json, problem);
    if (url.pathname === "/" || (parts[0] === "page" && parts[1] !== "settings.json")) {
      const file = parts[1] ?? "index.html";
      const text = /^[a-z-]+\.\w+$/.test(file) && (await readFile(PAGE + file).catch(() => null));
      if (!text) return problem(404, "no such file");
      return response
        .writeHead(200, { "content-type": TYPES[file.split(".")[1]], "content-security-policy": POLICY })
        .end(text);
    }
    if (url.pathname === "/page/settings.json") return json({ traces: "http://localhost:16686/trace/{trace_id}" });
    if (url.pathname === "/organism") {
      if (!state.observed) return problem(503, "nobody observes");
      stream().flushHeaders();
      watchers.add(response);
      return response.on("close", () => watchers.delete(response));
    }
    if (url.pathname === "/live") {
      stream().flushHeaders();
      const tell = setInterval(() => response.write("event: events\ndata: []\n\n"), 500);
      return response.on("close", () => clearInterval(tell));
    }
    if (url.pathname === "/stats") return json(stats(world));
    if (url.pathname === "/kitchens") return json(KITCHENS);
    if (parts[0] === "kitchens") {
      const tickets = [...world.orders.values()]
        .filter(({ kitchen }) => kitchen === parts[1])
        .map((order) => world.details(order));
      return json({
        kitchen_id: parts[1],
        name: parts[1],
        open: true,
        tickets: tickets.filter(({ status }) => ["paid", "cooking", "packed"].includes(status)),
      });
    }
    if (parts[0] === "orders" && parts[1]) {
      const order = world.orders.get(decodeURIComponent(parts[1]));
      return order ? json(world.details(order)) : problem(404, `there is no order "${parts[1]}"`);
    }
    if (parts[0] === "orders") {
      const [status, limit] = [url.searchParams.get("status"), Number(url.searchParams.get("limit") ?? 50)];
      const orders = [...world.orders.values()]
        .reverse()
        .map((order) => world.details(order))
        .filter((order) => !status || order.status === status);
      return json({ orders: orders.slice(0, limit), cursor: null });
    }
    problem(404, "no such page");
  });
  await new Promise((listening) => server.listen(port, "127.0.0.1", listening));
  return {
    port: server.address().port,
    world,
    state,
    stop: () => {
      clearTimeout(timer);
      server.closeAllConnections();
      return new Promise((closed) => server.close(closed));
    },
  };
}

function operate(world, [what, name, action], body, json, problem) {
  const done = (said, more = {}) => json({ said, ...more }, 202);
  if (what === "storm")
    return world.weather(body.weather) ? done(`The weather is: ${body.weather}.`) : problem(400, "no such weather");
  if (what === "services")
    return world.set(name, action) ? done(`${name}: ${action}.`) : problem(404, "no such service");
  if (what === "cards")
    return (
      (world.declining = body.declining),
      done(body.declining ? "Every card is declined." : "Cards are good again.")
    );
  if (what === "drivers")
    return ((world.driversOff = !body.on_shift), done(body.on_shift ? "All are back." : "Half of them went home."));
  if (what === "poison") return (world.poison(), done("An event that nobody can handle is on the log."));
  if (what === "dead-letters") return (world.lettersDo(body.do), done(`Dead letters: ${body.do}.`));
  if (what === "orders") return done("The order is placed.", { order_id: world.order(body) });
  const order = world.orders.get(body.order_id);
  if (!order) return problem(404, "there is no such order");
  order[{ pack: "packed", deliver: "delivered" }[what]] = true;
  return done(`${what}: done.`);
}

function stats(world) {
  const done = world.completed;
  return {
    minutes: world.minutes.map(({ minute, placed }) => ({
      minute: new Date(minute * 60_000).toISOString().slice(0, 16) + "Z",
      placed,
      paid: placed,
      packed: placed,
      delivered: placed,
      completed: Math.round(placed * 0.96),
      cancelled: 0,
    })),
    funnel: {
      placed: world.placed,
      paid: Math.round(world.placed * 0.97),
      cooking: done,
      packed: done,
      out_for_delivery: done,
      delivered: done,
      completed: done,
      cancelled: world.cancelled,
    },
    revenue: [{ currency: "EUR", captured: world.placed * 950, refunded: 23_400 }],
    legs: [
      ["placed → paid", 12, 95],
      ["paid → packed", 260, 420],
      ["packed → on its way", 14, 60],
      ["on its way → delivered", 580, 900],
    ].map(([leg, p50_ms, p99_ms]) => ({ leg, from: "a", to: "b", count: done, p50_ms, p99_ms })),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      port: { type: "string", default: "8090" },
      scene: { type: "string", default: "recorded" },
      speed: { type: "string", default: "1" },
      manual: { type: "boolean", default: false },
    },
  });
  const mock = await startMock({ ...values, port: Number(values.port), speed: Number(values.speed) });
  console.error(`listening on port ${mock.port}`);
}
