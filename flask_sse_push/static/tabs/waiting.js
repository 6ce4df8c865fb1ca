// @ts-check
/** Writes into the console why a connection may have to wait for other tabs. */

import { warnOnce } from "../console.js";

/** How many milliseconds a connection may wait for an answer before the console tells the reason. */
const PATIENCE = 5000;

/**
 * Warns in the console if the answer does not come in time, but only once for each page.
 * @param {boolean} canShare Whether tabs can share a connection.
 * @param {AbortSignal} answered Aborted when the answer has come.
 */
export function warnIfSilent(canShare, answered) {
  const timer = setTimeout(() => {
    const reason = canShare ? "" : " Tabs cannot share one here, because the browser has no Web Locks on this page.";
    warnOnce(
      `the server has not answered for ${PATIENCE / 1000} s. Over HTTP/1.1, a browser opens at most six connections ` +
        `per site, for all tabs together; the others wait.${reason} Serve the site over HTTPS with HTTP/2.`,
    );
  }, PATIENCE);
  answered.addEventListener("abort", () => clearTimeout(timer));
}
