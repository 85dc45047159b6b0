// Asking control. It is asked again and again rather than listened to: each answer is also the proof that
// what is shown is not stale, and control keeps nothing for a page that is open.

const TIMEOUT_MS = 4000;
const HIDDEN_TIMES = 5;

/** `status` 0: no answer. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) }).catch(() => {
    throw new Refused(0, "control does not answer");
  });
  const body = await response.json().catch(() => ({ error: `status ${response.status}` }));
  if (!response.ok) throw new Refused(response.status, body.error ?? `status ${response.status}`);
  return body;
}

export const get = (path, query = {}) => ask(`${path}?${new URLSearchParams(query)}`, { cache: "no-store" });

/** Change something; the header is one that no other site's page can send. */
export const change = (verb, order, token) =>
  ask(`/api/actions/${verb}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-aegis-console-token": token },
    body: JSON.stringify(order),
  });

/** Call `work` now and again `everyMs` after it ended, whatever came of it; rarely while nobody looks. */
export async function repeat(everyMs, work) {
  try {
    await work();
  } catch (error) {
    // Control's refusal or silence shows in the age of what is shown; anything else is a bug of this page.
    if (!(error instanceof Refused)) console.error(error);
  }
  setTimeout(() => repeat(everyMs, work), document.hidden ? everyMs * HIDDEN_TIMES : everyMs);
}
