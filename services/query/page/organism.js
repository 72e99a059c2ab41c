// The organism: organs and nerves on one canvas, with a button over each organ and a number on each nerve.
//
// What is drawn means something. The cells in an organ's skin are its workers: lit ones are awake. The thick end of a
// nerve is its lag: events that wait at the organ's door. A red glow is a dead letter. A dashed red skin is a service
// that was killed. A frame only says what should be seen; between frames everything moves there smoothly.

import { nerve as curve, organs as places, STEPS } from "./anatomy.js";
import { $, fit, keyed, make, mark, palette, say, still } from "./dom.js";
import { Pulses, Rain } from "./pulses.js";
import { rate, short, speaker } from "./words.js";

const DOWN = new Set(["killed", "stopped"]);
const CELLS = 24;
/** The lag that blocks a nerve from end to end. */
const FULL = 20_000;
/** The canvas is larger than the stage by so much on each side, as glows are larger than what glows. */
const BLEED = 48;

export class Organism {
  #stage = $("#stage");
  #canvas = $("#life");
  #context = this.#canvas.getContext("2d");
  #pulses = new Pulses();
  #rain = new Rain();
  #frame = null;
  #organs = [];
  #nerves = [];
  #hearing = new Map();
  #shape = "";
  #glow = null;
  #drawn = 0;
  #open;

  constructor(open) {
    this.#open = open;
    new ResizeObserver(() => this.#grow()).observe(this.#stage);
    still.addEventListener("change", () => this.#pulses.clear());
  }

  /** What the next pictures should show. */
  take(frame, now) {
    this.#frame = frame;
    const shape = frame.services.map(({ name }) => name).join() + frame.nerves.map(({ from, to }) => from + to).join();
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#grow();
    }
    frame.services.forEach((service, i) => (this.#organs[i].service = service));
    frame.nerves.forEach((nerve, i) => Object.assign(this.#nerves[i], { lag: nerve.lag, topic: nerve.topic }));
    if (!still.matches && !document.hidden)
      this.#pulses.send(frame.samples, (type) => this.#hearing.get(speaker(type)) ?? [], now, frame.interval_ms);
    this.#write();
  }

  /** Lays everything out anew, for this size of stage. */
  #grow() {
    if (!this.#frame) return;
    const { clientWidth: width, clientHeight: height } = this.#stage;
    if (!width || !height) return;
    const { services, nerves } = this.#frame;
    const where = places(
      width,
      height,
      services.map(({ name }) => name),
    );
    this.#organs = services.map((service, i) => ({
      phase: i * 1.9,
      ...this.#organs[i],
      ...where[service.name],
      service,
    }));
    this.#hearing.clear();
    this.#nerves = nerves.map((nerve, i) => {
      const { from, to, lag, topic } = nerve;
      this.#hearing.set(from, [...(this.#hearing.get(from) ?? []), i]);
      const before = this.#nerves[i];
      const pulse = Math.max(5, where[from].r * 0.1);
      return { from, to, lag, topic, shown: before?.shown ?? lag, queue: 0, pulse, ...curve(from, to, where) };
    });
    for (const nerve of this.#nerves) {
      nerve.line = new Path2D();
      nerve.xs.forEach((x, step) =>
        step ? nerve.line.lineTo(x, nerve.ys[step]) : nerve.line.moveTo(x, nerve.ys[step]),
      );
    }
    this.#pulses.clear();
    this.#glow = null;
    this.#place();
    this.#write();
  }

  /** Puts the buttons over the organs and the numbers on the nerves. */
  #place() {
    const button = ({ service: { name } }) =>
      make(
        "button",
        {
          class: "organ",
          "data-service": name,
          "data-testid": `organ-${name}`,
          "aria-label": `${name}: look inside`,
          onclick: () => this.#open(name),
        },
        make("span", { class: "name" }, name),
        make("span", { class: "rate" }),
        make("span", { class: "workers" }),
        make("span", { class: "badge", hidden: true }),
      );
    keyed(
      $("#organs"),
      this.#organs,
      ({ service }) => service.name,
      button,
      (node, { x, y, r }) => {
        [node.style.left, node.style.top] = [`${x - r}px`, `${y - r}px`];
        node.style.width = node.style.height = `${r * 2}px`;
      },
    );
    const label = ({ from, to }) => make("span", { class: "lag", "data-testid": `nerve-${from}-${to}` });
    keyed(
      $("#labels"),
      this.#nerves,
      ({ from, to }) => `${from} ${to}`,
      label,
      (node, { label: { x, y } }) => {
        node.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) translate(-50%, -50%)`;
      },
    );
  }

  #write() {
    const buttons = $("#organs").children;
    this.#organs.forEach(({ service }, i) => {
      const [, speed, workers, badge] = buttons[i].children;
      const down = DOWN.has(service.state);
      mark(buttons[i], "data-state", service.state);
      say(speed, down || service.state === "asleep" ? service.state : `${rate(service.rate)}/s`);
      say(workers, `${service.state === "slowed" ? "slowed · " : ""}${service.workers} of ${service.most}`);
      badge.hidden = !service.dead_letters;
      say(badge, service.dead_letters ? `${short(service.dead_letters)} dead` : "");
    });
    const labels = $("#labels").children;
    this.#nerves.forEach(({ lag }, i) => {
      say(labels[i], lag ? short(lag) : "");
      mark(labels[i], "data-jam", lag >= 1000 ? "much" : lag >= 50 ? "some" : "none");
    });
  }

  draw(now) {
    if (!this.#frame || !this.#organs.length) return;
    const { width, height } = fit(this.#canvas, 1.5);
    const seconds = Math.min(0.1, (now - this.#drawn) / 1000);
    this.#drawn = now;
    const context = this.#context;
    const colours = palette();
    if (this.#glow?.colours !== colours) this.#glow = glows(colours);
    context.clearRect(0, 0, width, height);
    context.translate(BLEED, BLEED);
    if (!still.matches)
      this.#rain.draw(
        context,
        width - BLEED,
        height - BLEED,
        seconds,
        this.#frame.storm?.rate ?? this.#frame.orders.placed_per_s,
        colours.rain,
      );
    context.lineCap = context.lineJoin = "round";
    for (const nerve of this.#nerves) this.#drawNerve(nerve, colours, seconds);
    for (const organ of this.#organs) this.#drawOrgan(organ, colours, still.matches ? 0 : now / 1000);
    context.globalAlpha = 1;
    if (!still.matches) this.#pulses.draw(context, now, this.#nerves, this.#glow);
  }

  #drawNerve(nerve, colours, seconds) {
    const context = this.#context;
    nerve.shown += (nerve.lag - nerve.shown) * (still.matches ? 1 : Math.min(1, seconds * 5));
    const jam = Math.min(1, Math.log1p(nerve.shown) / Math.log(FULL));
    nerve.queue = nerve.shown < 1 ? 0 : 0.08 + jam * 0.62;
    context.globalAlpha = colours.dark ? 0.34 : 0.45;
    context.strokeStyle = colours[nerve.from] ?? colours.query;
    context.lineWidth = 1.6;
    context.stroke(nerve.line);
    // The end that listens: a synapse.
    context.globalAlpha = 0.85;
    context.fillStyle = context.strokeStyle;
    context.beginPath();
    context.arc(nerve.xs[STEPS], nerve.ys[STEPS], 3.2, 0, 7);
    context.fill();
    if (!nerve.queue) return;
    // What waits: the longer the queue, the further it reaches back, the thicker and the hotter it is.
    context.fillStyle = jam > 0.42 ? colours.hot : context.strokeStyle;
    const widest = 1.5 + jam * jam * nerve.pulse * 0.85;
    context.globalAlpha = 0.2;
    this.#taper(nerve, widest * 2 + 2);
    context.globalAlpha = 0.92;
    this.#taper(nerve, widest);
  }

  /** Fills the queue's part of a nerve: pointed where it begins, `widest` to each side at the organ's door. */
  #taper({ xs, ys, queue }, widest) {
    const context = this.#context;
    const first = Math.floor((1 - queue) * STEPS);
    const side = (step, by) => {
      const [before, after] = [Math.max(0, step - 1), Math.min(STEPS, step + 1)];
      const [dx, dy] = [xs[after] - xs[before], ys[after] - ys[before]];
      const wide = (by * Math.sqrt((step - first) / (STEPS - first))) / (Math.hypot(dx, dy) || 1);
      context.lineTo(xs[step] + dy * wide, ys[step] - dx * wide);
    };
    context.beginPath();
    for (let step = first; step <= STEPS; step++) side(step, widest);
    for (let step = STEPS; step >= first; step--) side(step, -widest);
    context.fill();
  }

  #drawOrgan(organ, colours, time) {
    const context = this.#context;
    const { x, y, service, phase } = organ;
    const down = DOWN.has(service.state);
    const asleep = service.state === "asleep";
    const awake = Math.min(1, service.workers / service.most);
    organ.awake = (organ.awake ?? awake) + (awake - (organ.awake ?? awake)) * 0.06;
    const breath = down
      ? 0
      : Math.sin(time * (asleep ? 0.9 : 1.6 + organ.awake * 2.2) + phase) * (asleep ? 0.012 : 0.02);
    const r = organ.r * (0.97 + breath);
    const glow = (sprite, size, alpha) => {
      context.globalAlpha = alpha;
      context.drawImage(sprite, x - size, y - size, size * 2, size * 2);
    };
    if (service.dead_letters) glow(this.#glow.halo.dead, r * 2, 0.75 + Math.sin(time * 3) * 0.2);
    else if (!down)
      glow(this.#glow.halo[service.name], r * 1.9, (asleep ? 0.16 : 0.3 + organ.awake * 0.55) + breath * 4);
    this.#skin(x, y, r, time * (down ? 0 : 0.8), phase);
    context.globalAlpha = 1;
    context.fillStyle = this.#glow.flesh;
    context.fill();
    context.globalAlpha = down ? 0.06 : asleep ? 0.1 : 0.15 + organ.awake * 0.12;
    context.fillStyle = colours[service.name] ?? colours.query;
    context.fill();
    context.globalAlpha = asleep ? 0.55 : 1;
    context.lineWidth = service.state === "slowed" ? 3.5 : 2;
    context.strokeStyle = service.dead_letters || down ? colours.dead : (colours[service.name] ?? colours.query);
    context.setLineDash(service.state === "killed" ? [5, 9] : service.state === "slowed" ? [16, 6] : []);
    context.stroke();
    context.setLineDash([]);
    const cells = Math.min(service.most, CELLS);
    const lit = Math.round((service.workers / service.most) * cells);
    const size = Math.max(2.4, Math.min(7, r * 0.068));
    for (const [from, to, alpha, scale] of [
      [0, lit, 1, 1],
      [lit, cells, 0.3, 0.42],
    ]) {
      context.globalAlpha = alpha;
      context.fillStyle = down ? colours.quiet : (colours[service.name] ?? colours.query);
      context.beginPath();
      for (let cell = from; cell < to; cell++) {
        const angle = (cell / cells) * Math.PI * 2 - Math.PI / 2 + (down ? 0 : Math.sin(time * 0.5 + phase) * 0.1);
        const swim = r * (0.86 + (down ? 0 : Math.sin(time * 1.7 + cell * 2.4) * 0.015));
        const [cx, cy] = [x + Math.cos(angle) * swim, y + Math.sin(angle) * swim];
        context.moveTo(cx + size * scale, cy);
        context.arc(cx, cy, size * scale, 0, 7);
      }
      context.fill();
    }
  }

  /** A round thing that isn't quite: drawn through the middles between twelve points. */
  #skin(x, y, r, time, phase) {
    const context = this.#context;
    const points = 12;
    const at = (i) => {
      const angle = (i / points) * Math.PI * 2;
      const by = r * (1 + 0.028 * Math.sin(angle * 3 + time + phase) + 0.016 * Math.sin(angle * 2 - time * 1.3));
      return [x + Math.cos(angle) * by, y + Math.sin(angle) * by];
    };
    context.beginPath();
    let here = at(points - 1);
    for (let i = 0; i <= points; i++) {
      const next = at(i % points);
      const middle = [(here[0] + next[0]) / 2, (here[1] + next[1]) / 2];
      if (i) context.quadraticCurveTo(here[0], here[1], middle[0], middle[1]);
      else context.moveTo(middle[0], middle[1]);
      here = next;
    }
    context.closePath();
  }
}

/** Glows are painted once; drawing a picture of one costs little, blurring anew would cost much. */
function glows(colours) {
  const glow = { colours, halo: {}, flesh: colours.flesh };
  for (const name of ["order", "payment", "kitchen", "delivery", "query", "hot", "dead"]) {
    glow[name] = sprite(
      64,
      colours[name],
      colours.dark
        ? [
            [0, "#fff"],
            [0.22, null],
            [0.4, 0.4],
            [1, 0],
          ]
        : [
            [0, null],
            [0.5, null],
            [0.62, 0.3],
            [1, 0],
          ],
    );
    glow.halo[name] = sprite(128, colours[name], [
      [0, 0.55],
      [0.5, 0.4],
      [0.72, 0.12],
      [1, 0],
    ]);
  }
  return glow;
}

function sprite(size, colour, stops) {
  const canvas = make("canvas", { width: size, height: size });
  const context = canvas.getContext("2d");
  const gradient = context.createRadialGradient(size / 2, size / 2, 0, size / 2, size / 2, size / 2);
  for (const [at, what] of stops) {
    const alpha =
      typeof what === "number"
        ? Math.round(what * 255)
            .toString(16)
            .padStart(2, "0")
        : "";
    gradient.addColorStop(at, typeof what === "string" ? what : colour + alpha);
  }
  context.fillStyle = gradient;
  context.fillRect(0, 0, size, size);
  return canvas;
}
