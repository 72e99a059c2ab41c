// The weather and the heartbeats: what was measured over the last minutes, drawn whenever a frame comes.

import { fit, keyed, make, mark, palette, say } from "./dom.js";
import { Ring, plannedAt, roundUp } from "./ring.js";
import { count, lasting, rate } from "./words.js";

const PAST = 120_000;
const FORECAST = 15_000;

/** Orders a second over the p99 of placing one, the storm's plan behind. */
export class Weather {
  #canvas;
  #ring = new Ring(700, ["placed", "completed", "planned", "p99"]);

  constructor(canvas) {
    this.#canvas = canvas;
  }

  take({ at, orders, storm }) {
    const now = Date.parse(at);
    const planned = storm ? plannedAt(storm.planned, storm.second) : NaN;
    this.#ring.push(now, {
      placed: orders.placed_per_s,
      completed: orders.completed_per_s,
      planned,
      p99: orders.placing_p99_ms,
    });
    this.#draw(now, storm);
  }

  #draw(now, storm) {
    const { width, height } = fit(this.#canvas);
    if (!width) return;
    const context = this.#canvas.getContext("2d");
    const colours = palette();
    const from = now - PAST;
    const x = (at) => ((at - from) / (PAST + FORECAST)) * width;
    const split = Math.round(height * 0.64);
    const coming = storm ? storm.planned.map(([second, rate]) => [now + (second - storm.second) * 1000, rate]) : [];
    const peak = Math.max(
      ...["placed", "completed", "planned"].map((name) => this.#ring.most(from, name)),
      ...coming.filter(([at]) => at < now + FORECAST).map(([, rate]) => rate),
    );
    const top = roundUp(Math.max(10, peak));
    const slowest = roundUp(Math.max(20, this.#ring.most(from, "p99")));
    const orders = (rate) => split - (rate / top) * (split - 14);
    const p99 = (ms) => height - 1 - (ms / slowest) * (height - split - 20);
    context.clearRect(0, 0, width, height);

    // The plan, as a hill to climb: what was planned, and what is.
    context.fillStyle = colours.rain;
    context.beginPath();
    const hill = [];
    this.#ring.each(from, "planned", (at, value) => hill.push([at, value || 0]));
    let level = hill.at(-1)?.[1] ?? 0;
    context.moveTo(x(hill[0]?.[0] ?? now), split);
    for (const [at, value] of hill) context.lineTo(x(at), orders(value));
    for (const [at, value] of coming) {
      if (at <= now || at > now + FORECAST) continue;
      context.lineTo(x(at), orders(level));
      context.lineTo(x(at), orders((level = value)));
    }
    context.lineTo(storm ? width : x(now), orders(level));
    context.lineTo(storm ? width : x(now), split);
    context.fill();

    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    for (const y of [split, height - 1])
      line(context, [
        [0, y],
        [width, y],
      ]);
    context.setLineDash([2, 4]);
    line(context, [
      [x(now), 0],
      [x(now), height],
    ]);
    context.setLineDash([]);
    this.#trace(context, from, "completed", x, orders, colours.payment, 1.5);
    this.#trace(context, from, "placed", x, orders, colours.order, 2.2);
    this.#trace(context, from, "p99", x, p99, colours.delivery, 1.8);

    context.fillStyle = colours.quiet;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "top";
    context.fillText(`${count(top)}/s`, 2, 1);
    context.fillText(lasting(slowest), 2, split + 4);
  }

  #trace(context, from, name, x, y, colour, width) {
    context.beginPath();
    let drawing = false;
    this.#ring.each(from, name, (at, value) => {
      if (Number.isNaN(value)) return (drawing = false);
      if (drawing) context.lineTo(x(at), y(value));
      else context.moveTo(x(at), y(value));
      drawing = true;
    });
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.stroke();
  }
}

const MINUTE = 60_000;

/** A strip for each service: how many of its workers are awake, with a beat wherever one woke. */
export class Hearts {
  #list;
  #strips = new Map();

  constructor(list) {
    this.#list = list;
  }

  take({ at, services }) {
    const now = Date.parse(at);
    keyed(
      this.#list,
      services,
      ({ name }) => name,
      (service) => this.#strip(service),
      (row, service) => {
        const strip = this.#strips.get(service.name);
        const woke = Math.max(0, service.wakings - (strip.wakings ?? service.wakings));
        strip.wakings = service.wakings;
        strip.ring.push(now, { workers: service.workers / service.most, woke, down: Number(isDown(service)) });
        say(row.lastElementChild, `${service.workers}/${service.most}`);
        mark(row.lastElementChild, "title", `${service.workers} of ${service.most} ${service.unit}`);
        this.#draw(strip, service.name, now);
      },
    );
  }

  #strip({ name }) {
    const canvas = make("canvas", { role: "img", "aria-label": `Workers of ${name} over the last minute` });
    this.#strips.set(name, { canvas, ring: new Ring(320, ["workers", "woke", "down"]) });
    return make("li", { "data-service": name }, make("span", {}, name), canvas, make("span", { class: "number" }));
  }

  #draw({ canvas, ring }, name, now) {
    const { width, height } = fit(canvas);
    if (!width) return;
    const context = canvas.getContext("2d");
    const colours = palette();
    const from = now - MINUTE;
    const x = (at) => ((at - from) / MINUTE) * width;
    const base = height - 4;
    const y = (share) => base - share * (height - 8);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = context.fillStyle = colours[name] ?? colours.query;
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    let [first, last] = [null, null];
    context.beginPath();
    ring.each(from, "workers", (at, share) => {
      const here = x(at);
      if (first === null) context.moveTo((first = here), y(share));
      else context.lineTo(here, y(share));
      last = here;
    });
    if (first === null) return;
    context.stroke();
    context.lineTo(last, base);
    context.lineTo(first, base);
    context.globalAlpha = 0.18;
    context.fill();
    context.globalAlpha = 0.9;
    // A beat: up and down, as a cardiograph draws it.
    context.beginPath();
    ring.each(from, "woke", (at, woke) => {
      if (!woke) return;
      const [here, beat] = [x(at), Math.min(1, 0.3 + woke * 0.1) * (height - 6)];
      context.moveTo(here - 3, base);
      context.lineTo(here - 1, base - beat);
      context.lineTo(here + 1.5, base + 3);
      context.lineTo(here + 3, base);
    });
    context.lineWidth = 1.2;
    context.stroke();
    context.globalAlpha = 1;
    // Down: a flat line.
    context.strokeStyle = colours.dead;
    context.lineWidth = 2.4;
    context.beginPath();
    ring.each(from, "down", (at, down) => {
      if (!down) return;
      context.moveTo(x(at) - width / 280, base);
      context.lineTo(x(at) + 1, base);
    });
    context.stroke();
  }
}

/** Bars of the orders placed in each of the last minutes. */
export function drawMinutes(canvas, minutes) {
  const { width, height } = fit(canvas);
  if (!width) return;
  const context = canvas.getContext("2d");
  const colours = palette();
  const top = roundUp(Math.max(1, ...minutes.map(({ placed }) => placed)));
  const step = width / 60;
  context.clearRect(0, 0, width, height);
  minutes.slice(-60).forEach(({ placed, completed }, i, shown) => {
    const x = width - (shown.length - i) * step;
    for (const [n, colour, alpha] of [
      [placed, colours.order, 0.45],
      [completed, colours.payment, 0.9],
    ]) {
      const tall = (n / top) * (height - 16);
      context.globalAlpha = alpha;
      context.fillStyle = colour;
      context.fillRect(x + 1, height - tall, Math.max(1, step - 2), tall);
    }
  });
  context.globalAlpha = 1;
  context.fillStyle = colours.quiet;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  context.fillText(`${rate(top)} a minute`, 2, 0);
}

const isDown = ({ state }) => state === "killed" || state === "stopped";

function line(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}
