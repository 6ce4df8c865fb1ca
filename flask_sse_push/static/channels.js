// @ts-check
/**
 * Joins and leaves channels on an open stream, without a new connection. docs/protocol.md describes the request.
 * @import { Options } from "./push-client.js"
 * @import { Opening } from "./sources/source.js"
 */

import { renews } from "./reconnect.js";
import { headersOf } from "./sources/fetch.js";
import { refusal } from "./sources/refusal.js";

/** After these HTTP statuses a new connection may still succeed: the server is older, or could not be reached. */
const RECONNECT = [404, 405, 500, 502, 503, 504];

/**
 * @param {URL} stream
 * @param {Options & { page?: boolean }} options
 * @param {Partial<Opening> | null} opening The data of `sse.open`; null when the stream is not open.
 * @param {string[]} before The client's channels before the change.
 * @param {string[]} after The client's channels after it.
 * @param {Set<string>} channels The client's channels. If the server refuses, they lose the channels that were joined.
 * @param {AbortSignal} closed Aborted when the client is closed.
 * @returns {Promise<boolean>} Whether the open stream changes its channels. If false, the client must reconnect.
 * @throws {Error} If the server refuses, or closes the client before. The error has `status`, and `error` with the
 *   server's code.
 */
export async function changeChannels(stream, options, opening, before, after, channels, closed) {
  const join = after.filter((name) => !before.includes(name));
  const leave = before.filter((name) => !after.includes(name));
  if (!(join.length + leave.length)) return true;
  if (!opening || opening.poll || options.page === false) return false;
  const { connection, secret } = opening;
  const url = new URL(stream);
  url.searchParams.delete("channels"); // the server does not read them, and they may be long
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${connection}/channels`;
  const post = async () => {
    const headers = await headersOf({ ...options, body: {} });
    const credentials = options.withCredentials ? "include" : "same-origin";
    const body = JSON.stringify({ join, leave, secret });
    return fetch(url, { method: "POST", headers, body, credentials, signal: closed }).catch(() => null);
  };
  let response = await post();
  if (response?.status === 401 && renews(options)) response = await post();
  if (isClosed(closed)) return true;
  if (response?.status === 202) return true;
  if (!response || RECONNECT.includes(response.status)) return false;
  for (const name of join) channels.delete(name);
  const { status, error } = await refusal(response, stream.href);
  throw Object.assign(new Error(error?.message ?? `the server answered ${status}`), { status, error });
}

/**
 * Whether the page has closed the client. Then the page has no need of an answer, and no rejected promise may trouble it.
 * @param {AbortSignal} closed
 * @throws {Error} If the client closed for another reason, for example because the server refused its stream.
 */
export function isClosed({ aborted, reason }) {
  if (!aborted || reason.name === "AbortError") return aborted;
  const { status, error } = reason;
  throw Object.assign(new Error(error?.message ?? `the client was closed: ${reason.reason}`), { status, error });
}
