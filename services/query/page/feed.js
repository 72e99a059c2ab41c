// The nerve to the server: /organism, some five frames a second, each of which stands alone. The browser reconnects by
// itself where the connection breaks; here is the rest: saying so, noticing silence and delay, and trying again where
// the server refused.

const SILENCE = 3000;
const TRY_AGAIN = 3000;
const GIVE_UP = 10_000;

export const SAID = {
  connecting: "connecting",
  live: "live",
  lost: "connection lost, trying again",
  late: "what you see is more than 3 seconds old",
  unobserved: "Nobody observes the organism here. Orders can still be looked up below.",
};

/** Tells `onFrame` of each frame and `onState` of each change of state. */
export function feed({ onFrame, onState }) {
  let source = null;
  let state = null;
  let opened = performance.now();
  let heard = null;
  // Clocks differ between machines, so a frame is late against the quickest one so far, not against this clock.
  let quickest = Infinity;

  function become(next) {
    if (next !== state) onState((state = next));
  }

  function open() {
    source?.close();
    opened = performance.now();
    source = new EventSource("/organism");
    source.addEventListener("frame", take);
    source.onopen = () => (quickest = Infinity);
    source.onerror = () => (source.readyState === EventSource.CLOSED ? refused() : become("lost"));
  }

  function take({ data }) {
    const frame = JSON.parse(data);
    const delay = Date.now() - Date.parse(frame.at);
    quickest = Math.min(quickest, delay);
    heard = performance.now();
    become(delay - quickest > SILENCE ? "late" : "live");
    onFrame(frame);
  }

  /** The browser doesn't try again after an answer that is no stream; and it doesn't tell which answer it was. */
  async function refused() {
    const giveUp = new AbortController();
    try {
      const { status } = await fetch("/organism", { signal: giveUp.signal });
      become(status === 404 || status === 503 ? "unobserved" : "lost");
    } catch {
      become("lost");
    }
    giveUp.abort();
    setTimeout(open, TRY_AGAIN);
  }

  setInterval(() => {
    const now = performance.now();
    if (state === "live" && now - heard > SILENCE) become("late");
    // Open and silent: a connection can die without anybody saying so.
    if (source.readyState !== EventSource.CLOSED && now - Math.max(opened, heard ?? 0) > GIVE_UP) {
      become("lost");
      open();
    }
  }, 500);

  become("connecting");
  open();
}
