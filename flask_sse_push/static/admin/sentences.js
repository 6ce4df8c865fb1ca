// @ts-check
/** Says in a sentence what is going on when a view cannot show everything. */

/** @import { Child } from "./elements.js" */

import { make } from "./elements.js";
import { Failure } from "./server.js";

/** Says that some workers did not answer. @param {string[]} [workers] Their names. @returns {Child} */
export function missing(workers = []) {
  if (!workers.length) return null;
  const text = `No answer in time from ${workers.join(", ")}. What follows leaves out these workers.`;
  return make("p", { class: "notice", "data-key": "missing" }, text);
}

/** Makes a sentence of the message of a refusal. @param {string} message */
export const sentence = (message) => message.charAt(0).toUpperCase() + message.slice(1).replace(/([^.!?])$/, "$1.");

/**
 * Returns what the page says when it could not read its data.
 * @param {Failure} failure @param {Date | null} since When the data that the page still shows was read.
 */
export function trouble(failure, since) {
  const old = since ? ` What you see is from ${since.toLocaleTimeString([], { hour12: false })}.` : "";
  if (failure.status === 401) return "You are not signed in any more. Sign in again, then reload this page.";
  if (failure.status === 403) return "You may not use this page any more. Sign in as an admin, then reload this page.";
  if (failure.status === 0) return `The server does not answer. The page tries again every few seconds.${old}`;
  const again = failure.status === 503 ? " The page tries again every few seconds." : "";
  return `${sentence(failure.message)}${again}${old}`;
}
