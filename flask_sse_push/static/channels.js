/** Channels joined and left on an open stream, without a new connection; docs/protocol.md has the wire. */

import { headersOf } from "./sources/fetch.js";
import { refusal } from "./sources/refusal.js";

/** Answers after which a new connection may do what this could not: the server is older, or was not there. */
const ELSEWHERE = [404, 405, 500, 502, 503, 504];

/**
 * @param {object | false} opening What `sse.open` told: the connection, and its secret. False: it is not open.
 * @param {() => void} undo Called when the server refuses.
 * @returns {Promise<boolean>} Whether the stream changes its channels; else a new connection must.
 * @throws {Error} The server refuses: `status`, and `error` with its code.
 */
export async function changeRooms(stream, options, opening, { join, leave }, undo) {
  if (!opening || options.page === false) return false;
  const { connection, secret } = opening;
  const url = new URL(stream);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${connection}/channels`;
  const headers = await headersOf({ ...options, body: {} });
  const response = await fetch(url, {
    method: "POST",
    headers,
    body: JSON.stringify({ join, leave, secret }),
    credentials: options.withCredentials ? "include" : "same-origin",
  }).catch(() => null);
  if (response?.status === 202) return true;
  if (!response || ELSEWHERE.includes(response.status)) return false;
  undo();
  const { status, error } = await refusal(response);
  throw Object.assign(new Error(error?.message ?? `the server answered ${status}`), { status, error });
}
