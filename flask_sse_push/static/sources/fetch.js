// @ts-check
/**
 * One connection by fetch. It can send headers, a method and a body, hears events of every type, and learns why the
 * server refused it.
 * @import { Options } from "../push-client.js"
 * @import * as T from "./source.js"
 */

import { warnOnce } from "../console.js";
import { LONGEST_TIMER } from "../reconnect.js";
import { isBlocked } from "./blocked.js";
import { EventParser } from "./event-parser.js";
import { MAX_URL } from "./native.js";
import { isStream, refusal } from "./refusal.js";

/** The parameters that are sent in the body of a POST if the address is longer than `MAX_URL`. */
const IN_BODY = ["channels", "last_event_id", "ticket"];

/** How long a response may bring no event, in milliseconds, unless the app says another time. */
const OPEN_TIMEOUT = 5000;

/** A function in the app's options failed, or an option cannot be sent. */
class OptionError extends Error {
  /** @param {"headers" | "token" | "request"} option "request": the address, the method or the body. @param {unknown} cause */
  constructor(option, cause) {
    const what = option === "request" ? "this request cannot be sent, so the client closes" : `the option "${option}" failed`;
    super(`${what}:`, { cause });
    this.option = option;
  }
}

/** @implements {T.Source} */
export class Source {
  #stop = new AbortController();

  /**
   * @param {string} url
   * @param {Options} options
   * @param {Pick<T.Sink, "event" | "fail" | "trouble">} sink
   */
  constructor(url, options, sink) {
    this.#run(url, options, sink).then(
      (ending) => sink.fail(ending),
      (error) => sink.fail(failure(error)),
    );
  }

  /**
   * @param {string} url @param {Options} options @param {Pick<T.Sink, "event" | "trouble">} sink
   * @returns {Promise<T.Ending>}
   */
  async #run(url, options, sink) {
    const { trouble } = sink;
    const { mode } = options;
    trouble.poll ??= mode === "poll" || (mode !== "stream" && isBlocked());
    if (!trouble.poll) return read(url, options, sink, this.#stop);
    const { poll } = await import("./poll.js");
    return poll(url, options, sink, this.#stop);
  }

  close() {
    this.#stop.abort();
  }

}

/**
 * Reads one response until it ends.
 * @param {string} url
 * @param {Options} options
 * @param {Pick<T.Sink, "event" | "trouble">} sink
 * @param {AbortController} stop Ends the reading.
 * @returns {Promise<T.Ending>} The reason is "silent" if no event came within `openTimeout`.
 */
export async function read(url, options, sink, stop) {
  const { withCredentials, openTimeout = OPEN_TIMEOUT } = options;
  const { address, method, body } = requestOf(url, options);
  const headers = await headersOf({ ...options, body });
  const credentials = withCredentials ? "include" : "same-origin";
  const request = new AbortController();
  const { signal } = request;
  const end = () => request.abort();
  stop.signal.addEventListener("abort", end, { signal });
  if (stop.signal.aborted) end();
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    end();
  }, Math.min(openTimeout, LONGEST_TIMER));
  const event = (/** @type {T.RawEvent} */ event) => {
    clearTimeout(timer);
    sink.event(event);
  };
  try {
    const response = await fetch(requestFor(address, { method, body, headers, credentials, cache: "no-store", signal }));
    if (!isStream(response)) return await refusal(response, url);
    await readBody(response, options, { ...sink, event }, signal);
  } catch (error) {
    if (!silent) throw error;
  } finally {
    clearTimeout(timer);
    end();
  }
  return { reason: silent ? "silent" : "lost" };
}

/**
 * @param {Response} response @param {Options} options
 * @param {Pick<T.Sink, "event" | "trouble">} sink @param {AbortSignal} signal
 */
async function readBody(response, { maxEvent }, { event, trouble }, signal) {
  const parser = new EventParser({ event, retry: (ms) => (trouble.retry = ms) }, { maxSize: maxEvent });
  // A response with status 200 has a body. TypeScript declares the input of TextDecoderStream too widely.
  const bytes = /** @type {ReadableStream<BufferSource>} */ (response.body);
  const reader = bytes.pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true })).getReader();
  for (;;) {
    const { value = "", done } = await reader.read();
    if (done || signal.aborted) return;
    parser.feed(value);
  }
}

/**
 * Shortens a long address: its channels, cursor and ticket become the body of a POST, which the server reads like the
 * query of a GET. Leaves the address as it is if the app gives a method or a body of its own.
 * @param {string} url @param {Pick<Options, "method" | "body">} options
 */
function requestOf(url, { method, body }) {
  if (method || body || url.length <= MAX_URL) return { address: url, method: method ?? (body && "POST"), body };
  const address = new URL(url);
  const query = address.searchParams;
  const moved = IN_BODY.filter((name) => query.has(name)).map((name) => [name, query.get(name)]);
  for (const name of IN_BODY) query.delete(name);
  return { address, method: "POST", body: Object.fromEntries(moved) };
}

/**
 * @param {string | URL} address @param {Omit<RequestInit, "body"> & { body: unknown }} init
 * @throws {OptionError} If no browser sends such a request, for example a GET with a body. To repeat it would not help.
 */
function requestFor(address, { body, ...init }) {
  try {
    const content = isJson(body) ? JSON.stringify(body) : /** @type {BodyInit | undefined} */ (body);
    if (/^head$/i.test(init.method ?? "")) throw new TypeError("the answer to HEAD has no body");
    return new Request(address, { ...init, body: content });
  } catch (error) {
    throw new OptionError("request", error);
  }
}

const isJson = (/** @type {unknown} */ body) =>
  Object.getPrototypeOf(body ?? "") === Object.prototype || Array.isArray(body);

/** @param {unknown} error @returns {T.Ending} */
function failure(error) {
  if (!(error instanceof OptionError)) return { reason: "lost", error: /** @type {Error} */ (error) };
  warnOnce(error.message, error.cause);
  return { reason: error.option, error: /** @type {Error} */ (error.cause) };
}

/**
 * The headers of one request. Functions in the options are called for each connection, since tokens expire.
 * @param {Pick<Options, "headers" | "token" | "body">} options
 * @throws {OptionError} If a function throws, or gives what cannot be sent.
 */
export async function headersOf({ headers, token, body }) {
  const result = new Headers({ Accept: "text/event-stream" });
  if (isJson(body)) result.set("Content-Type", "application/json");
  const given = await valueOf("headers", headers);
  try {
    for (const [name, value] of new Headers(given)) result.set(name, value);
  } catch (error) {
    throw new OptionError("headers", error);
  }
  const bearer = (await valueOf("token", token)) ?? "";
  if (typeof bearer !== "string") throw new OptionError("token", new TypeError(`it is ${typeof bearer}, must be a string`));
  try {
    if (bearer) result.set("Authorization", `Bearer ${bearer}`);
  } catch (error) {
    throw new OptionError("token", error);
  }
  return result;
}

/**
 * @template Value
 * @param {"headers" | "token"} option
 * @param {Value | (() => Value | Promise<Value>)} given
 */
async function valueOf(option, given) {
  try {
    return await (given instanceof Function ? given() : given); // it may be a promise
  } catch (error) {
    throw new OptionError(option, error);
  }
}
