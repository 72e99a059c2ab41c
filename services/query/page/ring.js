// What was measured, for as long as it is of interest: rings of fixed length, made once. Pure.

/** The last so many measurements of some things at once, by time. */
export class Ring {
  constructor(length, names) {
    this.length = length;
    this.at = new Float64Array(length).fill(NaN);
    this.of = Object.fromEntries(names.map((name) => [name, new Float64Array(length).fill(NaN)]));
    this.next = 0;
  }

  push(at, values) {
    this.at[this.next] = at;
    for (const name in this.of) this.of[name][this.next] = values[name] ?? NaN;
    this.next = (this.next + 1) % this.length;
  }

  /** Tells of each measurement since `from`, oldest first; NaN is none. */
  each(from, name, tell) {
    for (let i = 0; i < this.length; i++) {
      const place = (this.next + i) % this.length;
      if (this.at[place] >= from) tell(this.at[place], this.of[name][place]);
    }
  }

  most(from, name) {
    let most = 0;
    this.each(from, name, (_, value) => (most = value > most ? value : most));
    return most;
  }
}

/** The next round number. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= value) * power;
}

/** Orders a second that the storm plans for a second of it. */
export function plannedAt(planned, second) {
  let rate = 0;
  for (const [from, then] of planned) if (from <= second) rate = then;
  return rate;
}
