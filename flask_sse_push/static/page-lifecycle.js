// @ts-check
/** Follows the page: whether it has a network, is visible, and whether the back-forward cache holds it. */

/** The longest time of a browser's timer, in milliseconds. A timer with a longer time fires at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * @typedef {object} Followed
 * @property {(reason: string) => void} suspend Closes the connection.
 * @property {() => void} resume Connects again; called when the last reason for the suspension has ended.
 * @property {() => void} save Saves the cursor.
 * @property {AbortSignal} closed Aborted when the client is closed for good.
 */

/**
 * @param {Followed} client
 * @param {number} hiddenAfter How long the page may be hidden before the client is suspended, in milliseconds. More
 *   than 24 days mean forever.
 */
export function followPage(client, hiddenAfter) {
  if (client.closed.aborted) return;
  const reasons = new Set();
  const suspend = (/** @type {string} */ reason) => {
    reasons.add(reason);
    client.suspend(reason);
  };
  const resume = (/** @type {string} */ reason) => {
    if (reasons.delete(reason) && !reasons.size) client.resume();
  };
  const saveAndSuspend = (/** @type {string} */ reason) => {
    client.save();
    suspend(reason);
  };
  /** @type {(target: EventTarget, type: string, handler: () => void) => void} */
  const on = (target, type, handler) => target.addEventListener(type, handler, { signal: client.closed });

  on(window, "offline", () => suspend("offline"));
  on(window, "online", () => resume("offline"));
  // The connection must be closed, because a page with an open connection does not enter the back-forward cache.
  on(window, "pagehide", () => saveAndSuspend("left"));
  on(window, "pageshow", () => resume("left"));
  on(document, "freeze", () => saveAndSuspend("frozen"));
  on(document, "resume", () => resume("frozen"));

  let timer = 0;
  const followVisibility = () => {
    clearTimeout(timer);
    if (!document.hidden) return resume("hidden");
    client.save();
    if (hiddenAfter <= LONGEST_TIMER) timer = setTimeout(() => suspend("hidden"), hiddenAfter);
  };
  on(document, "visibilitychange", followVisibility);
  if (document.hidden) followVisibility();
  client.closed.addEventListener("abort", () => clearTimeout(timer));
}
