// @ts-check
/**
 * Counts for the server's metrics how often this page's connections were opened, lost, silent or refused, and how many
 * `sse.error` events arrived. Measures how long a sample of the events took. Sends nothing about the user or the page.
 *
 *     import { report } from "/stream/client/report.js";
 *     const stop = report(push, "/stream/report");
 */

import { LatencySampler } from "./latency.js";

/** The largest count that the server accepts. */
const MAX_COUNT = 10000;

/** Milliseconds between two reports of a page that stays visible. */
const INTERVAL = 300_000;

/** Milliseconds until a page reports that it has got a traced event. */
const SOON = 1000;

/**
 * Counts and measures from now on. Sends a report whenever the page is hidden, left or closed, and each five minutes.
 * Call it in the same task in which you make the client: it measures events only from the next `sse.open` on.
 * @type {typeof import("./report.js").report}
 * @param url `<prefix>/report`. It must be of the page's own origin: elsewhere the browser asks
 *   the server for permission first, which a page that closes cannot wait for.
 * @returns A function that stops counting.
 */
export function report(client, url) {
  /** @type {Record<string, number>} */
  let counts = {};
  let soon = 0;
  const sampler = new LatencySampler(client, () => (soon ||= setTimeout(send, SOON)));

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
    clearTimeout(soon);
    soon = 0;
    const [latency, traces] = [sampler.take(), sampler.takeTraces()];
    const content = { ...counts, ...(latency.length && { latency }), ...(traces.length && { traces }) };
    if (!Object.keys(content).length) return;
    const body = new Blob([JSON.stringify(content)], { type: "application/json" });
    if (navigator.sendBeacon(url, body)) counts = {};
  };
  const sendIfHidden = () => document.visibilityState === "hidden" && send();
  // Pages that were opened at the same time must not report at the same time.
  let timer = setTimeout(function again() {
    send();
    timer = setTimeout(again, INTERVAL);
  }, Math.random() * INTERVAL);
  const stop = () => {
    client.removeEventListener("statechange", noteState);
    client.off("sse.error", noteError);
    document.removeEventListener("visibilitychange", sendIfHidden);
    clearTimeout(timer);
    clearTimeout(soon);
    sampler.stop();
  };

  client.addEventListener("statechange", noteState);
  client.on("sse.error", noteError);
  // When a page ends, `visibilitychange` is the only event that mobile browsers always fire.
  document.addEventListener("visibilitychange", sendIfHidden);
  return stop;
}
