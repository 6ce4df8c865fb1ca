// @ts-check
/**
 * The page's own stream, on which the workers report. Its state says whether the page is live.
 * @import { PushClient, StateChange } from "../push-client.js"
 * @import { Worker } from "./workers.js"
 */

import { Failure, Server } from "./server.js";

/** Milliseconds after which the page asks again for its session, if the server or the broker does not answer. */
const AGAIN = 5000;

/** Milliseconds that the page may be hidden before it closes its stream. */
const HIDDEN = 60_000;

/** Reasons for the end of a stream after which the user may not use the page any more. */
const ENDED = ["logout", "revoked", "refused", "expired"];

/** Why the stream waits, as a part of a sentence. @type {Record<string, string>} */
const REASONS = {
  drain: "the server is restarting",
  lost: "the connection to the server is lost",
  refused: "the server refused the stream",
  silent: "nothing has come from the server for too long",
  offline: "this device has no network",
  hidden: "the page was hidden",
};

/** @typedef {(state: string, sentence: string, hasTurned: boolean) => void} Show Gets each new state; `hasTurned`: whether
 *   an open stream has ended, or is open again. */

/**
 * Opens the stream, once the server says its channel.
 * @param {Server} server @param {typeof PushClient} Client @param {(worker: Worker) => void} report @param {Show} show
 */
export async function goLive(server, Client, report, show) {
  try {
    const { channel } = await server.session();
    follow(new Client(addressOf(channel), { hiddenAfter: HIDDEN }), report, show);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.isRefusal) return show("closed", "Not live: you are not signed in as an admin", false);
    show("waiting", "Not live yet", false);
    setTimeout(goLive, AGAIN, server, Client, report, show);
  }
}

/** @param {string} channel */
function addressOf(channel) {
  const url = new URL("./", document.baseURI);
  url.searchParams.set("channels", channel);
  return url.href;
}

/** @param {PushClient} client @param {(worker: Worker) => void} report @param {Show} show */
function follow(client, report, show) {
  let isLive = true; // at first, the page reads its data anyway
  client.on("worker", ({ data }) => report(data));
  client.addEventListener("statechange", ({ detail }) => {
    const wasLive = isLive;
    isLive = detail.state === "open" || (isLive && detail.state === "connecting");
    show(detail.state, sentenceOf(detail), isLive !== wasLive);
  });
}

/** Says whether the page is live, and if not, why. @param {Partial<StateChange>} change */
export function sentenceOf({ state, reason = "", delay }) {
  if (state === "open") return "Live";
  if (state === "connecting") return "Connecting…";
  if (state === "closed") return ENDED.includes(reason) ? "Not live: your session has ended" : "Not live any more";
  const again = delay === undefined ? "" : `; next try in ${Math.ceil(delay / 1000)} s`;
  return `Not live: ${REASONS[reason] ?? "the connection has ended"}${again}`;
}
