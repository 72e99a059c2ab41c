// What the operator may do: only what the frame says works here. Whatever is asked for is answered in one sentence.

import { get, post } from "./ask.js";
import { $, make, mark, say } from "./dom.js";
import { count, money } from "./words.js";

const ACTIONS = [
  ["stop", "stop"],
  ["slow", "slow"],
  ["kill", "kill"],
  ["start", "start"],
];
const RESULT = { stop: "stopped", slow: "slowed", kill: "killed" };
const CARDS = [
  ["tok_ok", "a good card"],
  ["tok_declined", "a bad card"],
  ["tok_flaky", "a flaky card"],
  ["tok_slow", "a slow card"],
];

/** Asks for it, and says what came of it. */
export async function tell(path, body) {
  const said = $("#said");
  try {
    const answer = await post(path, body);
    mark(said, "data-failed", false);
    said.textContent = answer.said ?? "Done.";
    return answer;
  } catch (error) {
    mark(said, "data-failed", true);
    said.textContent = error.message;
    return null;
  }
}

/** Stop, slow, kill, start: what holds now looks pressed. */
export function serviceButtons(place, service, can) {
  const possible = ACTIONS.filter(([action]) => can.includes(action));
  const shape = possible.join();
  if (place.shape !== shape) {
    place.shape = shape;
    place.replaceChildren(
      ...possible.map(([action, label]) =>
        make(
          "button",
          {
            class: "small",
            "data-do": action,
            "data-testid": `${action}-${service.name}`,
            "aria-label": `${label} ${service.name}`,
            onclick: () => tell(`/operator/services/${service.name}/${action}`),
          },
          label,
        ),
      ),
    );
  }
  for (const button of place.children) {
    const { do: action } = button.dataset;
    if (action in RESULT) mark(button, "aria-pressed", RESULT[action] === service.state);
  }
}

export class Operator {
  #can = null;
  #frame = null;
  #openOrder;

  constructor(openOrder) {
    this.#openOrder = openOrder;
  }

  take(frame) {
    this.#frame = frame;
    const can = frame.can.join();
    if (can !== this.#can) {
      this.#can = can;
      $("#operator").hidden = !frame.can.length;
      $("#controls").replaceChildren(...this.#groups(frame.can).filter(Boolean));
    }
    const toggle = (id, on, yes, no) => {
      const button = $(`[data-testid=${id}]`);
      if (!button) return;
      mark(button, "data-on", on);
      say(button, on ? yes : no);
    };
    toggle("cards", frame.declining, "accept cards again", "decline all cards");
    toggle("drivers", frame.drivers_off, "call the drivers back", "send half the drivers home");
    const letters = frame.services.reduce((sum, service) => sum + service.dead_letters, 0);
    const open = $("#letters");
    if (open) say(open, letters ? `${count(letters)} open` : "none open");
  }

  #groups(can) {
    const has = (action) => can.includes(action);
    const button = (label, id, does) => make("button", { "data-testid": id, onclick: does }, label);
    const rain = (label, weather) => button(label, `storm-${weather}`, () => tell("/operator/storm", { weather }));
    const letters = (label, what) =>
      button(label, `dead-letters-${what}`, () => tell("/operator/dead-letters", { do: what }));
    return [
      has("storm") &&
        group(
          "Make it rain",
          rain("calm", "calm"),
          rain("storm", "storm"),
          rain("ten times", "tenfold"),
          rain("stop", "stop"),
        ),
      (has("cards") || has("drivers") || has("poison")) &&
        group(
          "Make trouble",
          has("cards") &&
            button("decline all cards", "cards", () => tell("/operator/cards", { declining: !this.#frame.declining })),
          has("drivers") &&
            button("send half the drivers home", "drivers", () =>
              tell("/operator/drivers", { on_shift: this.#frame.drivers_off }),
            ),
          has("poison") && button("poison event", "poison", () => tell("/operator/poison")),
        ),
      has("dead_letters") &&
        group(
          "Dead letters",
          letters("redeliver", "redeliver"),
          letters("discard", "discard"),
          make("span", { id: "letters", class: "quiet" }),
        ),
      has("orders") && this.#counter(),
    ];
  }

  /** Place an order by hand. */
  #counter() {
    const kitchen = make("select", { "data-testid": "order-kitchen", onchange: () => this.#dishes(kitchen, dish) });
    const dish = make("select", { "data-testid": "order-dish" });
    const quantity = make("input", { type: "number", min: 1, max: 20, value: 1, "data-testid": "order-quantity" });
    const card = make(
      "select",
      { "data-testid": "order-card" },
      ...CARDS.map(([value, label]) => make("option", { value }, label)),
    );
    const field = (label, input) => make("label", {}, make("span", {}, label), input);
    const form = make(
      "form",
      { "data-testid": "place", onsubmit: (event) => this.#place(event, { kitchen, dish, quantity, card }) },
      field("kitchen", kitchen),
      field("dish", dish),
      field("how many", quantity),
      field("card", card),
      make("button", { "data-testid": "order-place" }, "place order"),
    );
    this.#menus(kitchen, dish);
    return group("Be a customer", form);
  }

  /** A town may open its kitchens after the page has opened. */
  async #menus(kitchen, dish) {
    const found = await get("/kitchens").catch(() => []);
    this.kitchens = found.filter(({ open }) => open);
    if (!this.kitchens.length) return void (kitchen.isConnected && setTimeout(() => this.#menus(kitchen, dish), 3000));
    kitchen.replaceChildren(...this.kitchens.map(({ kitchen_id: value, name }) => make("option", { value }, name)));
    this.#dishes(kitchen, dish);
  }

  #dishes(kitchen, dish) {
    const { menu, currency } = this.kitchens.find(({ kitchen_id: id }) => id === kitchen.value);
    const option = ({ item_id: value, name, price }) =>
      make("option", { value }, `${name}, ${money({ amount: price, currency })}`);
    dish.replaceChildren(...menu.filter(({ available }) => available).map(option));
  }

  async #place(event, { kitchen, dish, quantity, card }) {
    event.preventDefault();
    const answer = await tell("/operator/orders", {
      kitchen_id: kitchen.value,
      item_id: dish.value,
      quantity: Number(quantity.value),
      card: card.value,
    });
    if (answer?.order_id) this.#openOrder(answer.order_id);
  }
}

function group(name, ...things) {
  return make("fieldset", {}, make("legend", {}, name), make("div", { class: "row" }, ...things.filter(Boolean)));
}
