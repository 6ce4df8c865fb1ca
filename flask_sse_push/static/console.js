// @ts-check
/** Writes into the console what a developer should know. */

/** At most how many different texts a page writes into the console. */
const MAX_TEXTS = 100;

/** @type {Set<string>} */
const told = new Set();

/**
 * Writes a warning into the console. The same warning is written only once.
 * @param {string} text
 * @param {unknown[]} error Shown after the text, if there is one.
 */
export function warnOnce(text, ...error) {
  const whole = [text, ...error].join(" ");
  if (told.has(whole) || told.size >= MAX_TEXTS) return;
  told.add(whole);
  console.warn(`PushClient: ${text}`, ...error);
}

/**
 * Warns of an `sse.error`, which may come before `sse.open`, for example when the broker does not answer.
 * @param {import("./push-client.js").ServerError | null} error The data of the event.
 */
export function show(error) {
  if (error?.message) warnOnce(`the server says: ${error.message}`);
}
