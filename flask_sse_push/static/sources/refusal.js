// @ts-check
/**
 * Reads a server's answer that is not an event stream, and tells the developer about it.
 * @import { Refusal } from "./source.js"
 * @import { ServerError } from "../push-client.js"
 */

import { warnOnce } from "../console.js";

/** At most how many milliseconds the client waits because of `Retry-After`. */
const MAX_RETRY_AFTER = 3_600_000;

/** At most how many characters of an answer are read. */
const MAX_TEXT = 100_000;

/** At most how many characters of an answer that is not JSON the console shows. */
const MAX_SHOWN = 300;

/** Whether a response is an event stream. @param {Response} response */
export const isStream = ({ status, headers }) =>
  status === 200 && essence(headers.get("Content-Type")) === "text/event-stream";

/**
 * Returns the MIME type of a `Content-Type` in lower case and without its parameters (MIME Sniffing, section 4.2).
 * If there are several, the last valid one counts (Fetch, "extract a MIME type"). "" if none is valid.
 * @param {string | null} value
 */
export function essence(value) {
  const types = (value ?? "").match(/(?:[^",]|"(?:\\.|[^"\\])*"?)+/g) ?? [];
  const names = types.map((type) => type.split(";", 1)[0].trim().toLowerCase());
  return names.reverse().find((name) => /^[-!#$%&'*+.^_`|~\w]+\/[-!#$%&'*+.^_`|~\w]+$/.test(name) && name !== "*/*") ?? "";
}

/**
 * @param {Response} response Its body is read or cancelled.
 * @param {string} requested The address of the stream.
 * @returns {Promise<Refusal>}
 */
export async function refusal(response, requested) {
  const { status, headers, url, redirected } = response;
  const contentType = headers.get("Content-Type") ?? "";
  const text = /\bjson$|^text\/plain$/.test(essence(contentType)) ? await textOf(response) : "";
  response.body?.cancel().catch(() => {}); // a body that was read cannot be cancelled
  const error = parsed(text);
  warnOnce(explanation(response, requested, error?.message ?? text.slice(0, MAX_SHOWN)));
  return { reason: "refused", status, url, redirected, contentType, error, retryAfter: retryAfter(headers) };
}

/** Returns the beginning of a body. @param {Response} response */
async function textOf(response) {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = "";
  try {
    while (reader && text.length < MAX_TEXT) {
      const { value, done } = await reader.read();
      text += decoder.decode(value, { stream: !done });
      if (done) break;
    }
    reader?.cancel().catch(() => {});
  } catch {} // the network failed; the beginning is better than nothing
  return text.slice(0, MAX_TEXT);
}

/** Returns the server's error if the text is JSON; otherwise undefined. @param {string} text @returns {ServerError | undefined} */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @param {Response} response @param {string} requested @param {string} message What the server said. */
function explanation({ status, url, redirected, headers }, requested, message) {
  const asked = withoutQuery(requested);
  const answer = redirected ? `was redirected to ${withoutQuery(url)}, which answered` : "answered";
  const type = essence(headers.get("Content-Type")) || "no content type";
  const advice =
    status === 404
      ? `Is the blueprint registered under ${new URL(requested).pathname}?`
      : status === 200
        ? `An event stream has the content type text/event-stream. ${redirected ? "Is a login needed?" : ""}`
        : "";
  return [`${asked} ${answer} ${status} (${type}).`, message, advice].filter(Boolean).join(" ").trim();
}

/** Returns an address without its query, which may have a ticket. @param {string} url */
const withoutQuery = (url) => url.replace(/[?#].*/, "");

/** `Retry-After`, which is seconds or a date (RFC 9110, section 10.2.3), in milliseconds. @param {Headers} headers */
function retryAfter(headers) {
  const value = headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return seconds > 0 ? Math.min(MAX_RETRY_AFTER, seconds * 1000) : undefined;
}
