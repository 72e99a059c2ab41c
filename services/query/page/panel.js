// The panel at the side, and what it shows of a service: its rate, its lag partition by partition, what it said last,
// what it could not handle, and how it woke up. (What it shows of an order is in order.js.)

import { $, keyed, make, mark, say } from "./dom.js";
import { serviceButtons } from "./operator.js";
import { clock, count, eventName, lasting, rate, short, shortId, some, speaker } from "./words.js";

const RECENT = 12;

/** One panel for whatever somebody wants to look into. Closing it gives the focus back to where it came from. */
export class Panel {
  #panel = $("#panel");
  #opener = null;
  #onClose = null;

  constructor() {
    $("#panel-close").addEventListener("click", () => this.close());
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.close());
  }

  /** Shows `title` and returns the place for what belongs below it. */
  open(title, kind, onClose) {
    this.#onClose?.();
    this.#onClose = onClose ?? null;
    const active = document.activeElement;
    if (!this.#panel.contains(active)) this.#opener = active;
    const body = $("#panel-body");
    body.replaceChildren();
    this.#panel.hidden = false;
    this.#panel.scrollTop = 0;
    mark(this.#panel, "data-kind", kind);
    document.body.classList.add("looking");
    this.#alone(matchMedia("(max-width: 40rem)").matches);
    const heading = $("#panel-heading");
    say(heading, title);
    heading.focus({ preventScroll: true });
    return body;
  }

  close() {
    if (this.#panel.hidden) return;
    this.#onClose?.();
    this.#onClose = null;
    this.#panel.hidden = true;
    this.#alone(false);
    document.body.classList.remove("looking");
    history.replaceState(null, "", location.pathname);
    if (this.#opener?.isConnected) this.#opener.focus();
  }

  /** On a phone the panel covers everything, so nobody should wander off behind it. */
  #alone(alone) {
    for (const other of document.querySelectorAll("body > header, main")) other.inert = alone;
  }
}

/** A service, looked into. */
export class ServicePanel {
  #panel;
  #openOrder;
  #name = null;
  #parts = null;
  #frame = null;
  /** service → its newest events, as far as the samples tell. */
  #recent = new Map();
  #wrote = 0;

  constructor(panel, openOrder) {
    this.#panel = panel;
    this.#openOrder = openOrder;
  }

  take(frame) {
    this.#frame = frame;
    for (const sample of frame.samples) {
      const name = speaker(sample.type);
      const recent = this.#recent.get(name) ?? [];
      if (recent.unshift(sample) > RECENT) recent.length = RECENT;
      this.#recent.set(name, recent);
    }
    const now = performance.now();
    if (!this.#name || now - this.#wrote < 400) return;
    this.#wrote = now;
    this.#write();
  }

  open(name) {
    const body = this.#panel.open(name, "service", () => (this.#name = null));
    mark($("#panel"), "data-service", name);
    history.replaceState(null, "", `#service=${name}`);
    const part = (tag, title, attributes = {}) => {
      const node = make(tag, attributes);
      body.append(make("section", {}, make("h3", {}, title), node));
      return node;
    };
    this.#name = name;
    const buttons = make("div", { class: "row" });
    const now = make("p", { class: "now", "data-testid": "service-now" });
    body.append(now, buttons);
    this.#parts = {
      buttons,
      now,
      nerves: part("ul", "Lag, partition by partition", { class: "partitions", "data-testid": "partitions" }),
      recent: part("ul", "What it said last", { class: "events", "data-testid": "recent" }),
      errors: part("ul", "What went wrong", { class: "errors", "data-testid": "errors" }),
      start: part("ul", "How it woke up", { class: "bars" }),
    };
    if (this.#frame) this.#write();
    else say(now, "Nobody observes it at the moment.");
  }

  #write() {
    const service = this.#frame.services.find(({ name }) => name === this.#name);
    if (!service) return;
    const { buttons, now, nerves, recent, errors, start } = this.#parts;
    serviceButtons(buttons, service, this.#frame.can);
    say(
      now,
      `${service.state}: ${service.workers} of ${service.most} ${service.unit}, ` +
        `${rate(service.rate)} events a second. ` +
        `${count(service.handled)} handled, ${count(service.retried)} tried again, ` +
        `woken ${count(service.wakings)} times. ` +
        (service.oldest_ms == null ? "Nothing waits." : `The oldest event has waited ${lasting(service.oldest_ms)}.`),
    );

    const heard = this.#frame.nerves.filter(({ to }) => to === this.#name);
    keyed(
      nerves,
      heard,
      ({ topic }) => topic,
      (nerve) => partitions(nerve),
      (row, nerve) => {
        say(row.firstChild, `${nerve.topic}: ${count(nerve.lag)}`);
        const [, bars] = row.children;
        const most = Math.max(10, ...nerve.partitions);
        mark(bars, "aria-label", `lag of each partition: ${nerve.partitions.join(", ")}`);
        nerve.partitions.forEach((lag, i) => {
          const bar = bars.children[i] ?? bars.appendChild(make("span"));
          bar.style.setProperty("--share", (lag / most).toFixed(3));
          mark(bar, "data-lag", lag > 0);
          say(bar, lag ? short(lag) : "");
        });
      },
    );

    keyed(
      recent,
      this.#recent.get(this.#name) ?? [],
      ({ id }) => id,
      (event) =>
        make(
          "li",
          {},
          make("span", { class: "time" }, clock(event.at)),
          make("span", { class: "what" }, eventName(event.type)),
          event.order_id
            ? make(
                "button",
                {
                  class: "link",
                  "aria-label": `order ${event.order_id}`,
                  onclick: () => this.#openOrder(event.order_id),
                },
                shortId(event.order_id),
              )
            : make("span", { class: "quiet" }, shortId(event.subject)),
        ),
    );
    recent.classList.toggle("empty", !recent.childElementCount);

    keyed(
      errors,
      service.errors,
      ({ at, text }) => at + text,
      ({ at, text }) => make("li", {}, make("span", { class: "time" }, clock(at)), make("span", {}, text)),
    );
    errors.classList.toggle("empty", !service.errors.length);

    const phases = service.start?.phases ?? [];
    const longest = Math.max(1, ...phases.map(([, ms]) => ms));
    keyed(
      start,
      phases,
      ([phase]) => phase,
      () => bar(),
      (row, [phase, ms]) => setBar(row, phase, lasting(ms), ms / longest),
    );
    start.classList.toggle("empty", !phases.length);
  }
}

function partitions({ partitions }) {
  return make(
    "li",
    {},
    make("span"),
    make("div", { class: "partition-bars", role: "img", "aria-label": some(partitions.length, "partition") }),
  );
}

/** A named bar with a value. */
export const bar = () =>
  make("li", {}, make("span", { class: "what" }), make("span", { class: "bar" }), make("span", { class: "number" }));

export function setBar(row, name, value, share) {
  const [what, filled, number] = row.children;
  say(what, name);
  say(number, value);
  filled.style.setProperty("--share", Math.max(0, Math.min(1, share || 0)).toFixed(3));
}
