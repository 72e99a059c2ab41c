// The organism in words: a row for each service. It is what a screen reader has instead of the drawing, and what
// everybody has who wants the numbers.

import { $, keyed, make, mark, say } from "./dom.js";
import { serviceButtons } from "./operator.js";
import { count, lasting, rate } from "./words.js";

const NUMBERS = ["awake", "rate", "lag", "oldest", "dead-letters"];

export class Table {
  #rows = $("#services tbody");
  #open;

  constructor(open) {
    this.#open = open;
  }

  take({ services, can }) {
    keyed(
      this.#rows,
      services,
      ({ name }) => name,
      (service) => this.#row(service),
      (row, service) => {
        const said = {
          awake: `${service.workers} of ${service.most} ${service.unit}`,
          rate: rate(service.rate),
          lag: count(service.lag),
          oldest: lasting(service.oldest_ms),
          "dead-letters": count(service.dead_letters),
        };
        const [, state, ...cells] = row.children;
        say(state.firstChild, service.state);
        mark(row, "data-state", service.state);
        mark(row, "data-dead", service.dead_letters > 0);
        NUMBERS.forEach((name, i) => say(cells[i], said[name]));
        serviceButtons(row.lastElementChild, service, can);
      },
    );
    const any = ["stop", "slow", "kill", "start"].some((action) => can.includes(action));
    mark($("#services table"), "data-idle", !any);
  }

  #row({ name }) {
    const cell = (what) => make("td", { class: "number", "data-testid": `${name}-${what}` });
    return make(
      "tr",
      { "data-service": name },
      make("th", { scope: "row" }, make("button", { class: "link", onclick: () => this.#open(name) }, name)),
      make("td", { "data-testid": `${name}-state` }, make("span", { class: "state" })),
      ...NUMBERS.map(cell),
      make("td", { class: "do row" }),
    );
  }
}
