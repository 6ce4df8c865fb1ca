/**
 * Tells the server how this page's connections went, for its metrics: how often they opened, were lost, fell
 * silent or were refused, and how many errors the stream told. Nothing about the user or the page is sent.
 *
 *     import { report } from "/stream/client/report.js";
 *     const stop = report(push, "/stream/report");
 *
 * @module
 */
// @ts-check

/** The server takes no bigger numbers. */
const MOST = 10000;

/**
 * Counts from now on, and sends what there is whenever the page is hidden, left or closed.
 * @param {import("./push-client.js").PushClient} client
 * @param {string | URL} url `<prefix>/report`; of the page's own origin, since browsers ask first elsewhere.
 * @returns {() => void} Stops counting.
 */
export function report(client, url) {
  /** @type {Record<string, number>} */
  let counts = {};

  const count = (/** @type {string} */ kind) => {
    counts[kind] = Math.min((counts[kind] ?? 0) + 1, MOST);
  };
  const noteState = (/** @type {Event} */ event) => {
    const { state, reason } = /** @type {CustomEvent} */ (event).detail;
    if (state === "open") count("opened");
    else if (["lost", "silent", "refused"].includes(reason)) count(reason);
  };
  const noteError = () => count("errors");
  const send = () => {
    if (document.visibilityState !== "hidden" || !Object.keys(counts).length) return;
    const body = new Blob([JSON.stringify(counts)], { type: "application/json" });
    if (navigator.sendBeacon(url, body)) counts = {};
  };
  const stop = () => {
    client.removeEventListener("statechange", noteState);
    client.off("sse.error", noteError);
    document.removeEventListener("visibilitychange", send);
  };

  client.addEventListener("statechange", noteState);
  client.on("sse.error", noteError);
  // The last event that mobile browsers are sure to fire; closing the page fires it too.
  document.addEventListener("visibilitychange", send);
  return stop;
}
