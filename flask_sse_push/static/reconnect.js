// @ts-check
/**
 * Decides what PushClient does after a connection has ended.
 * @import { Options } from "./push-client.js"
 * @import { Closing, Ending, Step, Trouble } from "./sources/source.js"
 */

import { isBlocked, noteBlocked } from "./sources/blocked.js";

/** HTTP statuses after which the client closes. */
const FINAL = [204, 400, 401, 403, 405, 410, 413, 414, 415, 431, 505];

/** Factor for the delays on slow networks. */
const SLOWER = 3;

/** A stream that lasted longer than this many milliseconds was stable: its failure counts as the first. */
const STABLE = 5000;

/** If two tokens in a row expire within this many milliseconds, the client waits before it asks for the next. */
const HURRIED = 1000;

/** After so many connections in a row that brought nothing, the client tries the other mode: streams or short streams. */
const SILENCES = 2;

/** The longest time of a browser's timer, in milliseconds. A timer with a longer time fires at once. */
export const LONGEST_TIMER = 2 ** 31 - 1;

/** The longest delay, in milliseconds. It is below `LONGEST_TIMER`. */
const LONGEST = 2e9;

/** @type {(ending: Ending, openedAt: number | undefined, trouble: Trouble, options: Options) => Step} */
export function nextStep({ retryAfter = 0, closing, final, ...detail }, openedAt, trouble, options) {
  const { reason, status } = detail;
  const lasted = openedAt === undefined ? 0 : Date.now() - openedAt;
  if (lasted > STABLE) trouble.failures = 0;
  if (openedAt !== undefined) Object.assign(trouble, { renewed: false, silences: 0 });
  trouble.askWhy = reason === "refused";
  if (closing && (closing.reason ?? closing.reconnect) !== undefined) return afterClose(closing, lasted, trouble, options);
  if (reason === "silent" && openedAt === undefined && changesMode(trouble, options)) {
    return { state: "connecting", detail, error: true };
  }
  if (reason === "request") return { state: "closed", detail, error: true };
  // EventSource does not say why the server refused; fetch does.
  if (reason === "refused" && status === undefined) return { state: "connecting" };
  if (status === 401 && renews(options) && !final && !trouble.renewed) {
    trouble.renewed = true;
    return { state: "connecting" };
  }
  if (FINAL.includes(status ?? 0)) return { state: "closed", detail, error: true };
  if (trouble.failures >= (options.maxRetries ?? Infinity)) {
    return { state: "closed", detail: { ...detail, reason: "retries" }, error: true };
  }
  return { state: "waiting", detail: { ...detail, delay: retryAfter + delay(trouble, options) }, error: true };
}

/**
 * Changes the mode after a connection that brought nothing, if it was not the first. Returns whether the mode has changed.
 * @param {Trouble} trouble @param {Options} options
 */
function changesMode(trouble, { mode = "auto" }) {
  trouble.silences = (trouble.silences ?? 0) + 1;
  if (mode !== "auto" || (trouble.silences < SILENCES && (trouble.poll || !isBlocked()))) return false;
  trouble.silences = 0;
  trouble.poll = !trouble.poll;
  if (trouble.poll) noteBlocked();
  return true;
}

/** @type {(closing: Closing, lasted: number, trouble: Trouble, options: Options) => Step} */
function afterClose({ reason, reconnect, retry = 0 }, lasted, trouble, options) {
  if (reason === "expired" && renews(options)) {
    const hurried = lasted < HURRIED && trouble.hurried;
    trouble.hurried = lasted < HURRIED;
    return hurried ? { state: "waiting", detail: { reason, delay: delay(trouble, options) } } : { state: "connecting" };
  }
  if (!reconnect) return { state: "closed", detail: { reason } };
  return { state: "waiting", detail: { reason, delay: Math.min(LONGEST, Number(retry) || 0) } };
}

/** Whether the app gives new credentials for each connection. @param {Options} options */
export const renews = ({ token, headers }) => typeof token === "function" || typeof headers === "function";

/**
 * Returns a random time in milliseconds, so that clients that lost one server return at different times.
 * @param {Trouble} trouble @param {Options} options
 */
function delay(trouble, { minDelay = 1000, maxDelay = 30_000 }) {
  const network = /** @type {any} */ (globalThis.navigator)?.connection?.effectiveType;
  const slow = /2g/.test(network) ? SLOWER : 1;
  const retry = Number(trouble.retry) || 0; // the data of `sse.open` may hold anything
  const limit = Math.max(minDelay, retry) * 2 ** trouble.failures;
  trouble.failures += 1;
  return Math.random() * Math.min(slow * Math.min(maxDelay, limit), LONGEST);
}
