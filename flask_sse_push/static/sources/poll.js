// @ts-check
/**
 * Short streams, one after another, for networks that hold a response back until it ends. PushClient sees them as one
 * connection. Meanwhile, a stream is tried from time to time.
 * @import { Options } from "../push-client.js"
 * @import * as T from "./source.js"
 */

import { warnOnce } from "../console.js";
import { forgetBlocked } from "./blocked.js";
import { read } from "./fetch.js";

/** How long a short stream waits for an event, in seconds. Some proxies cut each response after 30 seconds. */
const LONGEST = 25;

/** Milliseconds between the beginnings of two short streams, at least. */
const PAUSE = 100;

/** Milliseconds before the first trial of a stream, and the longest pause. Each failed trial doubles the pause. */
const [FIRST_TRY, LAST_TRY] = [60_000, 3_600_000];

const HELD_BACK =
  "something between this page and the server, such as a proxy, holds streams back. So the page uses short streams, " +
  "which cost more requests. In nginx, set `proxy_buffering off` and `proxy_http_version 1.1`. To find the cause, run " +
  "`flask sse doctor --url` with the address of the stream.";

/** When the browser last got a network, in milliseconds since 1970. The network may be another one. */
let onlineAt = 0;
globalThis.addEventListener?.("online", () => (onlineAt = Date.now()));

/**
 * Reads short streams until one fails, or until a stream can be opened.
 * @param {string} url @param {Options} options
 * @param {Pick<T.Sink, "event" | "trouble">} sink
 * @param {AbortController} stop
 * @returns {Promise<T.Ending>}
 */
export async function poll(url, options, sink, stop) {
  const address = new URL(url);
  const trial = new Trial(address, options, sink.trouble, stop);
  try {
    const ending = await readAll(address, options, sink, stop);
    if (!trial.succeeded) return ending;
  } catch (error) {
    if (!trial.succeeded) throw error; // the trial has aborted the short stream
  }
  return { closing: { reason: "streaming", reconnect: true, retry: 0 } };
}

/**
 * Reads short streams until one fails. Only the first `sse.open` goes to the sink.
 * @param {URL} address Its cursor moves on.
 * @param {Options} options
 * @param {Pick<T.Sink, "event" | "trouble">} sink
 * @param {AbortController} stop
 */
async function readAll(address, options, sink, stop) {
  const query = address.searchParams;
  let opened = false;
  let quiet = false; // whether the short stream has brought nothing but its `sse.open`
  const event = (/** @type {T.RawEvent} */ event) => {
    if (event.id) query.set("last_event_id", event.id);
    const isOpen = event.type === "sse.open";
    quiet &&= isOpen;
    if (isOpen && !opened && options.mode !== "poll") warnOnce(HELD_BACK);
    if (!isOpen || !opened) sink.event(isOpen ? withoutChanges(event) : event);
    opened ||= isOpen;
  };
  for (;;) {
    quiet = true;
    query.set("poll", `${opened ? LONGEST : 0}`); // the first one ends at once, so the client soon knows that it is open
    const openTimeout = opened ? Infinity : options.openTimeout;
    const pause = new Promise((end) => setTimeout(end, PAUSE));
    const ending = await read(address.href, { ...options, openTimeout }, { ...sink, event }, stop);
    if (ending.reason !== "lost" || quiet || stop.signal.aborted) return ending;
    await pause;
  }
}

/**
 * Marks the data of `sse.open`: the next short stream has another id, so the server cannot change this one's channels.
 * @param {T.RawEvent} event
 */
function withoutChanges(event) {
  const mark = event.data.endsWith("\t") ? "\t" : "";
  return { ...event, data: JSON.stringify({ ...JSON.parse(event.data), poll: true }) + mark };
}

/** Tries from time to time, beside the short streams, whether a stream can be opened. */
class Trial {
  succeeded = false;
  #address;
  #options;
  #trouble;
  #stop;

  /** @param {URL} address @param {Options} options @param {T.Trouble} trouble @param {AbortController} stop */
  constructor(address, options, trouble, stop) {
    this.#address = address;
    this.#options = options;
    this.#trouble = trouble;
    this.#stop = stop;
    if (options.mode !== "poll") this.#later();
  }

  #later() {
    const { tried = { at: Date.now(), wait: FIRST_TRY } } = this.#trouble;
    if (onlineAt > tried.at) Object.assign(tried, { at: 0, wait: FIRST_TRY });
    this.#trouble.tried = tried;
    const timer = setTimeout(() => this.#try(tried), Math.max(0, tried.at + tried.wait - Date.now()));
    this.#stop.signal.addEventListener("abort", () => clearTimeout(timer));
  }

  /** @param {{ at: number, wait: number }} tried */
  async #try(tried) {
    const attempt = new AbortController();
    this.#stop.signal.addEventListener("abort", () => attempt.abort());
    const url = new URL(this.#address);
    url.searchParams.delete("poll");
    const event = () => {
      this.succeeded = true;
      attempt.abort();
    };
    await read(url.href, this.#options, { event, trouble: { failures: 0 } }, attempt).catch(() => {});
    if (this.#stop.signal.aborted) return;
    if (!this.succeeded) {
      Object.assign(tried, { at: Date.now(), wait: Math.min(2 * tried.wait, LAST_TRY) });
      return this.#later();
    }
    this.#trouble.poll = false;
    this.#trouble.tried = undefined;
    forgetBlocked();
    this.#stop.abort();
  }
}
