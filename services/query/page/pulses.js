// What moves: events as pulses along nerves, and the rain. Both live in arrays of fixed length that are made once, so a
// storm can neither fill the memory nor wake the garbage collector.

import { STEPS } from "./anatomy.js";

const MOST = 150;
/** From here on an event is shown on one of its nerves only, not on all. */
const BUSY = 60;
const TRAVEL = 1300;
const SAD = /declined|cancelled|rejected|failed|refused|refund|voided/;

export class Pulses {
  #nerve = new Int8Array(MOST).fill(-1);
  #from = new Float64Array(MOST);
  #lasts = new Float32Array(MOST);
  #sad = new Uint8Array(MOST);
  #turn = 0;
  alive = 0;

  /** Lets the samples of a frame start one after the other, over the time until the next. */
  send(samples, heardBy, now, interval) {
    samples.forEach(({ type }, i) => {
      const nerves = heardBy(type);
      if (!nerves.length) return;
      const start = now + (i / samples.length) * interval;
      const few = this.alive > BUSY ? [nerves[this.#turn++ % nerves.length]] : nerves;
      for (const nerve of few) this.#start(nerve, start, SAD.test(type));
    });
  }

  #start(nerve, at, sad) {
    if (this.alive >= MOST) return;
    const free = this.#nerve.indexOf(-1);
    this.#nerve[free] = nerve;
    this.#from[free] = at;
    this.#lasts[free] = TRAVEL * (0.85 + Math.random() * 0.3);
    this.#sad[free] = sad ? 1 : 0;
    this.alive++;
  }

  /** Each pulse ends where the queue begins. */
  draw(context, now, nerves, glow) {
    for (let i = 0; i < MOST; i++) {
      if (this.#nerve[i] < 0) continue;
      const progress = (now - this.#from[i]) / this.#lasts[i];
      if (progress < 0) continue;
      const nerve = nerves[this.#nerve[i]];
      if (progress >= 1 || !nerve) {
        this.#nerve[i] = -1;
        this.alive--;
        continue;
      }
      const eased = progress * progress * (3 - 2 * progress) * 0.5 + progress * 0.5;
      const at = eased * (1 - nerve.queue) * STEPS;
      const step = Math.min(STEPS - 1, Math.floor(at));
      const rest = at - step;
      const x = nerve.xs[step] + (nerve.xs[step + 1] - nerve.xs[step]) * rest;
      const y = nerve.ys[step] + (nerve.ys[step + 1] - nerve.ys[step]) * rest;
      const size = nerve.pulse * Math.min(1, progress * 8, (1 - progress) * 6 + 0.25);
      context.drawImage(this.#sad[i] ? glow.hot : glow[nerve.from], x - size, y - size, size * 2, size * 2);
    }
  }

  clear() {
    this.#nerve.fill(-1);
    this.alive = 0;
  }
}

const DROPS = 110;

/** It rains as hard as people order. */
export class Rain {
  #drops = Array.from({ length: DROPS }, () => ({
    x: Math.random(),
    y: Math.random(),
    far: 0.35 + Math.random() * 0.65,
  }));
  #heavy = 0;

  draw(context, width, height, seconds, perSecond, colour) {
    const wanted = Math.min(1, Math.log10(1 + Math.max(0, perSecond)) / 3);
    this.#heavy += (wanted - this.#heavy) * Math.min(1, seconds * 1.5);
    const falling = Math.round(this.#heavy * DROPS);
    if (!falling) return;
    context.beginPath();
    for (let i = 0; i < falling; i++) {
      const drop = this.#drops[i];
      drop.y += (seconds * drop.far * (500 + 500 * this.#heavy)) / height;
      if (drop.y > 1.05) [drop.y, drop.x] = [-0.05, Math.random() * 1.1];
      const length = (8 + 14 * this.#heavy) * drop.far;
      const [x, y] = [drop.x * width - drop.y * 26, drop.y * height];
      context.moveTo(x, y);
      context.lineTo(x - length * 0.14, y + length);
    }
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.stroke();
  }
}
