// @ts-check
/**
 * Follows the page: whether it has a network, is visible, and whether the back-forward cache holds it. Keeps the cursor
 * over page loads, if the client wants that.
 * @import { PushClient } from "./push-client.js"
 */

import { warnOnce } from "./console.js";
import { LONGEST_TIMER } from "./reconnect.js"; // also because PushClient needs the module when there is no network

/**
 * @param {PushClient} client
 * @param {object} options
 * @param {boolean} [options.page] False if the client does not follow the page.
 * @param {number} [options.hiddenAfter] How long the page may be hidden before the client is suspended, in milliseconds.
 *   More than 24 days mean forever.
 * @param {string | false | undefined} memory The key of the cursor in sessionStorage, if the cursor is kept.
 * @param {(reason: string) => void} setSuspended Called with a reason, the function closes the connection. Called
 *   with "" when no reason is left, it connects again.
 * @param {AbortSignal} closed Aborted when the client is closed for good.
 */
export function followPage(client, { page = true, hiddenAfter = Infinity }, memory, setSuspended, closed) {
  if (!page || closed.aborted || !globalThis.document) return;
  const reasons = new Set();
  const suspend = (/** @type {string} */ reason) => {
    reasons.add(reason);
    setSuspended(reason);
  };
  const resume = (/** @type {string} */ reason) => {
    if (reasons.delete(reason) && !reasons.size) setSuspended("");
  };
  const save = () => {
    try {
      if (memory) sessionStorage.setItem(memory, client.lastEventId);
    } catch (error) {
      warnOnce("the browser does not keep the cursor, so the option `remember` has no effect:", error);
    }
  };
  const saveAndSuspend = (/** @type {string} */ reason) => {
    save();
    suspend(reason);
  };
  /** @type {(target: EventTarget, type: string, handler: () => void) => void} */
  const on = (target, type, handler) => target.addEventListener(type, handler, { signal: closed });

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
    save();
    if (hiddenAfter <= LONGEST_TIMER) timer = setTimeout(() => suspend("hidden"), hiddenAfter);
  };
  on(document, "visibilitychange", followVisibility);
  if (document.hidden) followVisibility();
  closed.addEventListener("abort", () => {
    save();
    clearTimeout(timer);
  });
}
