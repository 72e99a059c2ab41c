// The few things that this page does with elements. Nodes are made once and written to only when what they say has
// changed, so that five frames a second cost next to nothing.

/** make("button", {class: "x", onclick: …, "data-testid": …}, children…) */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

export const $ = (selector, within = document) => within.querySelector(selector);

/** Says it, unless it is said already. */
export function say(node, text) {
  const said = String(text);
  if (node.textContent !== said) node.textContent = said;
}

export function mark(node, name, value) {
  const said = String(value);
  if (node.getAttribute(name) !== said) node.setAttribute(name, said);
}

/** Lets the children of `list` be one for each item, in order. A node stays its item's for as long as that is there,
 *  so whoever has the focus keeps it. */
export function keyed(list, items, key, create, update) {
  const nodes = (list.nodesByKey ??= new Map());
  const wanted = new Set(items.map(key));
  for (const [name, node] of nodes) {
    if (wanted.has(name)) continue;
    node.remove();
    nodes.delete(name);
  }
  let place = list.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let node = nodes.get(name);
    if (!node) nodes.set(name, (node = create(item)));
    update?.(node, item);
    if (node === place) place = place.nextElementSibling;
    else list.insertBefore(node, place);
  }
}

/** A canvas as sharp as the screen; says whether there is anything to draw on. */
export function fit(canvas, sharpest = 2) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = Math.min(devicePixelRatio || 1, sharpest);
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  return { width, height };
}

const dark = matchMedia("(prefers-color-scheme: dark)");
export const still = matchMedia("(prefers-reduced-motion: reduce)");
let colours = null;
dark.addEventListener("change", () => (colours = null));

/** The style sheet's colours, for what is drawn on canvases. */
export function palette() {
  if (colours) return colours;
  const style = getComputedStyle(document.documentElement);
  colours = { dark: dark.matches };
  for (const name of [
    "ink",
    "quiet",
    "line",
    "order",
    "payment",
    "kitchen",
    "delivery",
    "query",
    "hot",
    "dead",
    "rain",
    "flesh",
  ])
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  return colours;
}
