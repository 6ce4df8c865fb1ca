// @ts-check
/**
 * Joins and leaves channels on an open stream, without a new connection. docs/protocol.md describes the request.
 * @import { Options } from "./push-client.js"
 * @import { Opening } from "./sources/source.js"
 */

import { headersOf } from "./sources/fetch.js";
import { refusal } from "./sources/refusal.js";

/** After these HTTP statuses a new connection may still succeed: the server is older, or could not be reached. */
const RECONNECT = [404, 405, 500, 502, 503, 504];

/**
 * @param {URL} stream
 * @param {Options & { page?: boolean }} options
 * @param {Opening | null} opening The data of `sse.open`; null when the stream is not open.
 * @param {string[]} before The client's channels before the change.
 * @param {Set<string>} channels The client's channels. If the server refuses, they lose the channels that were joined.
 * @returns {Promise<boolean>} Whether the open stream has or gets these channels. If false, the client must reconnect.
 * @throws {Error} If the server refuses. The error has `status`, and `error` with the server's code.
 */
export async function changeChannels(stream, options, opening, before, channels) {
  const join = [...channels].filter((name) => !before.includes(name));
  const leave = before.filter((name) => !channels.has(name));
  if (!(join.length + leave.length)) return true;
  if (!opening || options.page === false) return false;
  const { connection, secret } = opening;
  const url = new URL(stream);
  url.searchParams.delete("channels"); // the server does not read them, and they may be long
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${connection}/channels`;
  const headers = await headersOf({ ...options, body: {} });
  const response = await fetch(url, {
    method: "POST",
    headers,
    body: JSON.stringify({ join, leave, secret }),
    credentials: options.withCredentials ? "include" : "same-origin",
  }).catch(() => null);
  if (response?.status === 202) return true;
  if (!response || RECONNECT.includes(response.status)) return false;
  for (const name of join) channels.delete(name);
  const { status, error } = await refusal(response);
  throw Object.assign(new Error(error?.message ?? `the server answered ${status}`), { status, error });
}
