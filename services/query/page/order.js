// Orders: the newest ones, one found by its id, and one looked into: its route as a waterfall, made of its own
// timeline, where each event says which one caused it.

import { get } from "./ask.js";
import { $, keyed, make, mark, say } from "./dom.js";
import { waterfall } from "./waterfall.js";
import { clock, eventName, lasting, listed, money, shortId, some, spaced, speaker } from "./words.js";

const EVERY = 2000;
const ENDED = new Set(["completed", "cancelled"]);

/** The newest orders. The list holds still while somebody points at it or has the focus in it. */
export class Orders {
  #list = $("#newest");
  #open;

  constructor(open) {
    this.#open = open;
    $("#find").addEventListener("submit", (event) => {
      event.preventDefault();
      const id = $("#find-id").value.trim();
      if (id) open(id);
    });
    this.#look();
  }

  async #look() {
    const held = this.#list.matches(":hover, :focus-within");
    if (!document.hidden && !held) await this.#write().catch(() => {});
    setTimeout(() => this.#look(), EVERY);
  }

  async #write() {
    const { orders } = await get("/orders?limit=20");
    keyed(
      this.#list,
      orders,
      ({ order_id: id }) => id,
      (order) => this.#row(order),
      (row, { status, total }) => {
        const [, state, amount] = row.firstChild.children;
        say(state, spaced(status));
        mark(state, "data-status", status);
        say(amount, total ? money(total) : "");
      },
    );
    this.#list.classList.toggle("empty", !orders.length);
  }

  #row({ order_id: id, kitchen_id: kitchen }) {
    return make(
      "li",
      {},
      make(
        "button",
        { class: "order", "data-order": id, onclick: () => this.#open(id) },
        make("span", { class: "what" }, `${shortId(id)} · ${kitchen}`),
        make("span", { class: "status" }),
        make("span", { class: "number" }),
      ),
    );
  }
}

/** An order, looked into, for as long as it moves. */
export class OrderPanel {
  #panel;
  #settings = get("/page/settings.json").catch(() => ({}));
  #id = null;
  #live = null;
  #next = null;
  #parts = null;

  constructor(panel) {
    this.#panel = panel;
  }

  async open(id) {
    const body = this.#panel.open(`Order ${shortId(id)}`, "order", () => this.#leave());
    this.#id = id;
    history.replaceState(null, "", `#order=${encodeURIComponent(id)}`);
    body.append(make("p", { class: "now" }, "Looking for it."));
    // Whoever has just placed it may be ahead of the view: that waits for the order a little.
    await this.#show(id, "?at_least=1");
    if (this.#id === id && body.dataset.status && !ENDED.has(body.dataset.status)) this.#follow(id);
  }

  #leave() {
    this.#id = null;
    this.#live?.close();
    this.#live = null;
    clearTimeout(this.#next);
    this.#next = null;
    delete $("#panel-body").dataset.status;
  }

  /**
   * Its events are told as they happen; then its view is read again, as that knows the whole story. The view may hear of
   * an event a moment later than we do, so it is read now and then in any case.
   */
  #follow(id) {
    const soon = (wait) => {
      clearTimeout(this.#next);
      this.#next = setTimeout(async () => {
        if (this.#id !== id) return;
        await this.#show(id);
        if (this.#id !== id) return;
        if (ENDED.has($("#panel-body").dataset.status)) this.#live?.close();
        else soon(EVERY);
      }, wait);
    };
    this.#live = new EventSource(`/live?order=${encodeURIComponent(id)}`);
    this.#live.addEventListener("events", () => soon(250));
    soon(250);
  }

  async #show(id, query = "") {
    const body = $("#panel-body");
    let order;
    try {
      order = await get(`/orders/${encodeURIComponent(id)}${query}`);
    } catch (error) {
      // What was shown once stays: whoever reads it should not lose it to a server that restarts.
      if (this.#id === id && !body.dataset.status)
        body.replaceChildren(make("p", { class: "now", "data-testid": "no-order" }, error.message));
      return;
    }
    const { traces } = await this.#settings;
    if (this.#id !== id) return;
    if (!body.dataset.status) body.replaceChildren(...this.#build(order, traces));
    mark(body, "data-status", order.status);
    this.#write(order);
  }

  /** Makes the places for everything. They stay while the order moves, so that nobody loses the focus. */
  #build({ order_id: id, trace_id: trace }, template) {
    const column = (name) => make("th", { scope: "col" }, name);
    const head = ["time", "event", "stream", "no.", "id", "caused by"].map(column);
    const parts = (this.#parts = {
      status: make("strong", { class: "status", "data-testid": "order-status" }),
      what: make("span"),
      money: make("p", { "data-testid": "money" }),
      route: make("ol", { class: "waterfall", "data-testid": "waterfall" }),
      events: make("summary"),
      history: make("tbody"),
    });
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), parts.history);
    const story = [
      make("p", { class: "id", "data-testid": "order-id" }, id),
      make("p", { class: "now" }, parts.status, parts.what),
      make("section", {}, make("h3", {}, "Money"), parts.money),
      make("section", {}, make("h3", {}, "Its route"), parts.route),
      make(
        "details",
        {},
        parts.events,
        make("div", { class: "wide", tabindex: 0, role: "group", "aria-label": "Table of its events" }, table),
      ),
    ];
    if (trace && /^https?:\/\//.test(template ?? "")) {
      const href = template.replace("{trace_id}", encodeURIComponent(trace));
      story.push(make("a", { href, target: "_blank", rel: "noreferrer", "data-testid": "trace" }, "See its trace"));
    }
    return story;
  }

  #write(order) {
    const { status, items, kitchen_id: kitchen, customer_id: customer, cancellation, total, timeline } = order;
    const { captured, refunded } = order.money;
    const parts = this.#parts;
    const dishes = listed(items.map(({ quantity, name }) => `${quantity} × ${name}`));
    const why = cancellation?.reason ? ` Cancelled: ${spaced(cancellation.reason)}.` : "";
    const back = refunded.amount ? `${money(refunded)} given back` : "nothing given back";
    const moved = captured.amount ? `${money(captured)} taken, ${back}` : "nothing taken";
    mark(parts.status, "data-status", status);
    say(parts.status, spaced(status));
    say(parts.what, ` · ${dishes} from ${kitchen}, for ${customer}.${why}`);
    say(parts.money, `${total ? `${money(total)} in all, ` : ""}${moved}.`);
    parts.route.replaceChildren(...waterfall(timeline).map(routeRow));
    say(parts.events, `Full history: ${some(timeline.length, "event")}`);
    parts.history.replaceChildren(...timeline.map((step) => historyRow(step, order.order_id)));
  }
}

function routeRow({ name, because, took, since, from, width }) {
  const filled = make("span", { class: "bar", "aria-hidden": "true" });
  filled.style.setProperty("--from", from.toFixed(4));
  filled.style.setProperty("--share", width.toFixed(4));
  return make(
    "li",
    { "data-service": speaker(name) },
    make("span", { class: "what" }, name),
    make("span", { class: "number" }, took == null ? `+${lasting(since)}` : lasting(took)),
    make("span", { class: "because" }, because ? `after ${because}` : "from outside"),
    filled,
  );
}

function historyRow({ id, type, source, subject, sequence, time, causation_id: cause }, order) {
  const stream = subject === order ? source : `${source} ${shortId(subject)}`;
  const cells = [clock(time), eventName(type), stream, sequence, shortId(id), shortId(cause)];
  return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
}
