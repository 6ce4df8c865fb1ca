// @ts-check
/**
 * Reads a server's answer that is not an event stream.
 * @import { Refusal } from "./source.js"
 */

/** At most how many milliseconds the client waits because of `Retry-After`. */
const MAX_RETRY_AFTER = 3_600_000;

/** Whether a response is an event stream. @param {Response} response */
export const isStream = ({ status, headers }) =>
  status === 200 && /^text\/event-stream\b/.test(headers.get("Content-Type") ?? "");

/**
 * @param {Response} response Its body is read or cancelled.
 * @returns {Promise<Refusal>}
 */
export async function refusal(response) {
  const { status, headers } = response;
  return { reason: "refused", status, error: await bodyOf(response), retryAfter: retryAfter(headers) };
}

/** Returns the parsed body if the body is JSON; otherwise undefined. @param {Response} response */
async function bodyOf(response) {
  if (response.headers.get("Content-Type")?.includes("json")) return response.json().catch(() => undefined);
  response.body?.cancel();
  return undefined;
}

/** `Retry-After`, which is seconds or a date (RFC 9110, section 10.2.3), in milliseconds. @param {Headers} headers */
function retryAfter(headers) {
  const value = headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return seconds > 0 ? Math.min(MAX_RETRY_AFTER, seconds * 1000) : undefined;
}
