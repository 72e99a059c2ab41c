// Questions to the server and requests of the operator. Whatever goes wrong comes out as one sentence.

/** What the server says to GET `path`; throws an Error that has its status. */
export const get = (path) => ask(path, { headers: { accept: "application/json" } });

/** Asks for something to be done, and returns the answer: {said, …}. */
export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

async function ask(path, how) {
  let answer;
  try {
    answer = await fetch(path, { ...how, signal: AbortSignal.timeout(15_000) });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok) return body ?? {};
  const reason = body?.detail ?? body?.title ?? `The server answered ${answer.status}.`;
  throw Object.assign(new Error(reason), { status: answer.status });
}
