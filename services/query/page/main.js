// The live page. Frames come from the feed and go to everybody who shows something of them; between frames the organism
// moves by itself.

import { Boards } from "./boards.js";
import { Hearts, Weather } from "./charts.js";
import { $, mark, say, still } from "./dom.js";
import { SAID, feed } from "./feed.js";
import { narrate } from "./narrate.js";
import { Operator } from "./operator.js";
import { OrderPanel, Orders } from "./order.js";
import { Organism } from "./organism.js";
import { Panel, ServicePanel } from "./panel.js";
import { keepStats } from "./stats.js";
import { Table } from "./table.js";
import { count, lasting, rate } from "./words.js";

/** A sentence stands for this long at least. */
const SENTENCE = 2000;

const panel = new Panel();
const orderPanel = new OrderPanel(panel);
const openOrder = (id) => orderPanel.open(id);
const servicePanel = new ServicePanel(panel, openOrder);
const openService = (name) => servicePanel.open(name);
const organism = new Organism(openService);
const listeners = [
  new Weather($("#weather")),
  new Hearts($("#hearts")),
  new Table(openService),
  new Operator(openOrder),
  new Boards(),
  servicePanel,
];
new Orders(openOrder);
keepStats();

// For whoever measures: what the page's script took for each picture, with the frames that came before it; and when the
// last sentence was told.
const measured = (window.rainstorm = { frameTimes: [], frames: 0, toldAt: -Infinity });
let spent = 0;

function picture(now) {
  const begin = performance.now();
  organism.draw(now);
  measured.frames++;
  measured.frameTimes.push(performance.now() - begin + spent);
  if (measured.frameTimes.length > 600) measured.frameTimes.shift();
  spent = 0;
}

function everyPicture(now) {
  if (!still.matches) picture(now);
  requestAnimationFrame(everyPicture);
}
requestAnimationFrame(everyPicture);

let story = null;

function tellStory(frame, now) {
  story = narrate(frame, story);
  if (now - measured.toldAt < SENTENCE || $("#narration").textContent === story.text) return;
  measured.toldAt = now;
  say($("#narration"), story.text);
}

function writeVitals({ orders, services }) {
  const write = (id, text) => say($(`[data-testid=${id}]`), text);
  const waits = services.map(({ oldest_ms: oldest }) => oldest).filter((oldest) => oldest != null);
  const letters = services.reduce((sum, service) => sum + service.dead_letters, 0);
  write("placed", rate(orders.placed_per_s));
  write("placing-p99", lasting(orders.placing_p99_ms));
  write("journey-p99", lasting(orders.journey_p99_ms));
  write("under-way", count(orders.under_way));
  write("oldest", waits.length ? lasting(Math.max(...waits)) : "none waits");
  write("dead-letters", count(letters));
  mark($("#dead"), "data-dead", letters > 0);
}

feed({
  onFrame(frame) {
    const begin = performance.now();
    organism.take(frame, begin);
    for (const listener of listeners) listener.take(frame);
    writeVitals(frame);
    tellStory(frame, begin);
    spent += performance.now() - begin;
    if (still.matches) picture(begin);
  },
  onState(state) {
    const connection = $("#connection");
    mark(connection, "data-state", state);
    say(connection, SAID[state]);
    document.body.classList.toggle("asleep", state !== "live");
    if (state === "unobserved") say($("#narration"), SAID.unobserved);
  },
});

// A link may point into the page: #order=… or #service=…
const [, what, which] = location.hash.match(/^#(order|service)=(.+)$/) ?? [];
if (what === "order") openOrder(decodeURIComponent(which));
if (what === "service") openService(decodeURIComponent(which));
