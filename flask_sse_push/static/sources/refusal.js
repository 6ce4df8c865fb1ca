/** What an answer that is no event stream says. */

/** Ms that a server may ask to stay away. */
const LONGEST = 3_600_000;

/** Whether an answer is an event stream. */
export const isStream = ({ status, headers }) =>
  status === 200 && /^text\/event-stream\b/.test(headers.get("Content-Type") ?? "");

/**
 * @param {Response} response Its body is read.
 * @returns {Promise<{reason: string, status: number, error?: object, retryAfter?: number}>} `error` is the body
 *   of our own refusals; `retryAfter` is in ms.
 */
export async function refusal(response) {
  const { status, headers } = response;
  const told = headers.get("Retry-After") ?? "";
  const seconds = /^\d+$/.test(told) ? Number(told) : (Date.parse(told) - Date.now()) / 1000;
  const json = headers.get("Content-Type")?.includes("json");
  const error = json ? await response.json().catch(() => undefined) : void response.body?.cancel();
  return { reason: "refused", status, error, retryAfter: seconds > 0 ? Math.min(LONGEST, seconds * 1000) : undefined };
}

/** Asks for a stream once, to learn why EventSource was refused; null when it would be welcome now. */
export async function ask(url, { withCredentials }, signal) {
  const stop = new AbortController();
  signal.addEventListener("abort", () => stop.abort());
  const credentials = withCredentials ? "include" : "same-origin";
  const headers = { Accept: "text/event-stream" };
  const response = await fetch(url, { credentials, headers, cache: "no-store", signal: stop.signal });
  const told = isStream(response) ? null : await refusal(response);
  stop.abort();
  return told;
}
