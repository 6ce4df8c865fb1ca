// @ts-check
/**
 * Counts for the server's metrics how often this page's connections were opened, lost, silent or refused, and how many
 * `sse.error` events arrived. Sends nothing about the user or the page.
 *
 *     import { report } from "/stream/client/report.js";
 *     const stop = report(push, "/stream/report");
 */

/** The largest count that the server accepts. */
const MAX_COUNT = 10000;

/**
 * Counts from now on, and sends the counts whenever the page is hidden, left or closed.
 * @type {typeof import("./report.js").report}
 * @param url `<prefix>/report`. It must be of the page's own origin: elsewhere the browser asks
 *   the server for permission first, which a page that closes cannot wait for.
 * @returns A function that stops counting.
 */
export function report(client, url) {
  /** @type {Record<string, number>} */
  let counts = {};

  const count = (/** @type {string} */ kind) => {
    counts[kind] = Math.min((counts[kind] ?? 0) + 1, MAX_COUNT);
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
  // When a page ends, `visibilitychange` is the only event that mobile browsers always fire.
  document.addEventListener("visibilitychange", send);
  return stop;
}
