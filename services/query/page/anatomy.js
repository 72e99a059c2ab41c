// Where organs lie and how nerves run, for a stage of any size. Pure geometry.
//
// The four writing services lie on a ring in the order in which an order meets them, with the query service in the
// middle, as it hears everything. Every nerve bows to the left of its direction: so the way of an order is the outline
// of the body, and what is told backwards runs inside.

const PLACES = {
  order: [0.17, 0.5],
  payment: [0.5, 0.14],
  kitchen: [0.83, 0.5],
  delivery: [0.5, 0.86],
  query: [0.5, 0.5],
};
export const STEPS = 48;

/** {name → {x, y, r}} */
export function organs(width, height, names) {
  const r = Math.max(38, Math.min(118, width * 0.132, height * 0.128));
  const margin = r + Math.min(26, r * 0.36);
  const places = {};
  names.forEach((name, i) => {
    const [x, y] = PLACES[name] ?? [(i + 1) / (names.length + 1), 0.5];
    places[name] = {
      x: Math.min(Math.max(x * width, margin), width - margin),
      y: Math.min(Math.max(y * height, margin), height - margin),
      r: name === "query" ? r * 0.84 : r,
    };
  });
  return places;
}

/** The nerve as points, and where its label stands. */
export function nerve(from, to, places) {
  const [a, b] = [places[from], places[to]];
  const curve = from === to ? loop(a, places) : bow(a, b, Object.values(places));
  const [xs, ys] = [new Float32Array(STEPS + 1), new Float32Array(STEPS + 1)];
  for (let i = 0; i <= STEPS; i++) [xs[i], ys[i]] = bezier(curve, i / STEPS);
  const at = curve.label ?? 0.5;
  const [x, y] = bezier(curve, at);
  return { xs, ys, label: { x, y } };
}

function bow(a, b, all) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const distance = Math.hypot(dx, dy);
  const [left, up] = [dy / distance, -dx / distance];
  const between = all.find(
    (o) =>
      o !== a &&
      o !== b &&
      Math.abs((o.x - a.x) * left + (o.y - a.y) * up) < o.r * 0.5 &&
      (o.x - a.x) * dx + (o.y - a.y) * dy > 0 &&
      Math.hypot(o.x - a.x, o.y - a.y) < distance,
  );
  const lift = between ? (between.r * 1.5) / 0.75 : distance * 0.17;
  const c1 = [a.x + dx * 0.3 + left * lift, a.y + dy * 0.3 + up * lift];
  const c2 = [a.x + dx * 0.7 + left * lift, a.y + dy * 0.7 + up * lift];
  return { p: [rim(a, c1), c1, c2, rim(b, c2, 5)], label: between ? 0.8 : 0.62 };
}

/** A service that hears itself: out of the body and back, a little aside, where there is more room. */
function loop(a, places) {
  const all = Object.values(places);
  const middle = [all.reduce((sum, o) => sum + o.x, 0) / all.length, all.reduce((sum, o) => sum + o.y, 0) / all.length];
  const away = Math.atan2(a.y - middle[1], a.x - middle[0]) - 0.7;
  const out = (angle, by) => [a.x + Math.cos(angle) * by, a.y + Math.sin(angle) * by];
  const reach = a.r * 1.62;
  return { p: [out(away - 0.34, a.r), out(away - 0.42, reach), out(away + 0.42, reach), out(away + 0.34, a.r + 5)] };
}

function rim(organ, [x, y], gap = 0) {
  const angle = Math.atan2(y - organ.y, x - organ.x);
  return [organ.x + Math.cos(angle) * (organ.r + gap), organ.y + Math.sin(angle) * (organ.r + gap)];
}

function bezier({ p: [p0, p1, p2, p3] }, t) {
  const s = 1 - t;
  const [a, b, c, d] = [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
  return [a * p0[0] + b * p1[0] + c * p2[0] + d * p3[0], a * p0[1] + b * p1[1] + c * p2[1] + d * p3[1]];
}
