// @ts-check
/** Loads the module that shares a connection between tabs. A page that cannot share never loads it. */

/** Browsers offer Web Locks only on pages with HTTPS or on localhost, and not in sandboxed frames. */
export const canShare = () =>
  Boolean(globalThis.navigator?.locks && globalThis.BroadcastChannel && globalThis.origin !== "null");

/** Milliseconds before a failed request is repeated, and the longest pause. Each failure doubles the pause. */
const PAUSE = 250;
const MAX_PAUSE = 60_000;

/** After so many failures, other tabs get the permit of this tab: it may have to wait for long. */
const MAX_FAILURES = 4;

/**
 * Returns the module; null if `ended` is aborted before. Repeats a request that fails, because one lost request must
 * not keep this tab from sharing for as long as its own connection lasts.
 * @param {AbortSignal} ended @param {AbortController} permit
 */
export async function loadHub(ended, permit) {
  for (let failures = 0; !ended.aborted; failures += 1) {
    const module = await import("./hub.js").catch(() => null);
    if (module) return module;
    if (failures === MAX_FAILURES) permit.abort();
    const pause = Math.min(PAUSE * 2 ** failures, MAX_PAUSE);
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
  return null;
}
