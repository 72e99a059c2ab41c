// The cook's board and the driver's, where cooking and riding wait for a person.

import { get } from "./ask.js";
import { $, keyed, make, say } from "./dom.js";
import { tell } from "./operator.js";
import { listed, shortId, spaced } from "./words.js";

const EVERY = 1500;
/** Tickets that one person may want to see. */
const SHOWN = 12;

export class Boards {
  #frame = null;

  constructor() {
    setInterval(() => this.#look(), EVERY);
  }

  take(frame) {
    const first = !this.#frame;
    this.#frame = frame;
    $("#cook").hidden = !frame.manual.cooking;
    $("#driver").hidden = !frame.manual.riding;
    $("#boards").hidden = !frame.manual.cooking && !frame.manual.riding;
    if (first) this.#look();
  }

  async #look() {
    if (!this.#frame || document.hidden) return;
    const { manual } = this.#frame;
    try {
      if (manual.cooking) await this.#cook();
      if (manual.riding) await this.#ride();
    } catch {
      // The page says already that the server doesn't answer.
    }
  }

  async #cook() {
    const select = $("#cook-kitchen");
    if (!select.options.length) {
      const kitchens = await get("/kitchens");
      select.replaceChildren(...kitchens.map(({ kitchen_id: value, name }) => make("option", { value }, name)));
      select.onchange = () => this.#look();
    }
    if (!select.value) return;
    const { tickets } = await get(`/kitchens/${encodeURIComponent(select.value)}/board`);
    this.#list($("#cook .tickets"), tickets, "pack", "cooking");
  }

  async #ride() {
    const { orders } = await get(`/orders?status=out_for_delivery&limit=${SHOWN}`);
    this.#list($("#driver .tickets"), orders, "deliver", "out_for_delivery");
  }

  #list(list, tickets, action, when) {
    const possible = this.#frame.can.includes(action);
    keyed(
      list,
      tickets.slice(0, SHOWN),
      ({ order_id: id }) => id,
      ({ order_id: id }) =>
        make(
          "li",
          {},
          make("span", { class: "what" }),
          make("span", { class: "quiet" }),
          make(
            "button",
            {
              class: "small",
              "aria-label": `${action} ${shortId(id)}`,
              "data-testid": action,
              onclick: () => tell(`/operator/${action}`, { order_id: id }).then(() => this.#look()),
            },
            action,
          ),
        ),
      (row, { order_id: id, items, status, kitchen_id: kitchen }) => {
        const [what, where, button] = row.children;
        say(what, items ? listed(items.map(({ quantity, name }) => `${quantity} × ${name}`)) : `from ${kitchen}`);
        say(where, `${shortId(id)} ${spaced(status)}`);
        button.hidden = !possible || status !== when;
      },
    );
    list.classList.toggle("empty", !tickets.length);
  }
}
