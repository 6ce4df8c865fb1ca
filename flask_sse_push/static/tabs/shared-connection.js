// @ts-check
/**
 * The connection in the leader's tab. It carries the channels that all tabs want together, and the server names the
 * channels of each event.
 * @import { Options, StateChange } from "../push-client.js"
 * @import { RawEvent } from "../sources/source.js"
 * @import { Leader } from "./messages.js"
 */

import { PushClient } from "../push-client.js";

/** How long to wait before channels are joined or left, in milliseconds, so that the changes of several tabs are sent
 * together. */
export const GATHER = { join: 20, leave: 5000 };

/**
 * @typedef {object} ConnectionHandlers
 * @property {() => Set<string>} wanted The channels that all tabs want together.
 * @property {(opening: Partial<Leader>, user: string | null) => void} onOpen `user` is the
 *   server's name for the user of the connection.
 * @property {(event: RawEvent) => void} onEvent
 * @property {(detail: StateChange) => void} onWaiting The connection is between two attempts.
 * @property {(detail: StateChange) => void} onClosed The server ended the connection for good.
 */

export class SharedConnection {
  #handlers;
  #client;
  #closed = false;
  /** @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */
  #timers = {};

  /**
   * @param {URL} base The stream's address without channels.
   * @param {Options} options
   * @param {string} cursor
   * @param {ConnectionHandlers} handlers
   */
  constructor(base, options, cursor, handlers) {
    this.#handlers = handlers;
    const url = new URL(base);
    url.searchParams.set("tagged", "1");
    const channels = handlers.wanted();
    const own = { tabs: false, batch: 0, channels, lastEventId: cursor, page: false, remember: false };
    this.#client = new PushClient(url, { ...options, ...own, transport: "fetch" });
    this.#passOn(cursor);
  }

  /** @param {string} cursor */
  #passOn(cursor) {
    const client = this.#client;
    let marks = false;
    client.on("*", ({ type, data, text, lastEventId: id, channels }) => {
      if (this.#closed) return;
      if (type === "sse.open") {
        const { connection, heartbeat, resumed, secret, user } = data;
        marks = text.endsWith("\t");
        const opening = { connection, heartbeat, resumed, secret, marks };
        this.#handlers.onOpen({ channels: client.channels, cursor: cursor || id, ...opening }, user);
      } else if (type !== "sse.close") {
        cursor = id || cursor;
        this.#handlers.onEvent({ type, data: text, id, channels, marks });
      }
      cursor ||= id;
    });
    client.addEventListener("error", ({ detail }) => {
      const { type, reason, size, error, lastEventId: id, channels } = detail;
      if (this.#closed || !type) return; // only the error about a skipped event has a type
      this.#handlers.onEvent({ type, data: "", id, channels, skipped: { reason, size, error } });
    });
    client.addEventListener("statechange", ({ detail }) => {
      if (this.#closed) return;
      if (detail.state === "waiting") this.#handlers.onWaiting(sendable(detail));
      if (detail.state === "closed") this.#handlers.onClosed(sendable(detail));
    });
  }

  /** Joins the channels that a tab wants, and leaves the channels that no tab wants. Both happen after a delay. */
  adapt() {
    if (this.#missing().length) this.#later("join", () => this.#client.join(...this.#missing()));
    // A stream without channels listens to the default channel, so the last channels stay.
    if (this.#handlers.wanted().size && this.#unwanted().length) {
      this.#later("leave", () => this.#client.leave(...this.#unwanted()));
    }
  }

  /** @param {"join" | "leave"} kind @param {() => void} change */
  #later(kind, change) {
    this.#timers[kind] ??= setTimeout(() => {
      this.#timers[kind] = undefined;
      change();
    }, GATHER[kind]);
  }

  #missing() {
    return [...this.#handlers.wanted()].filter((name) => !this.#client.channels.includes(name));
  }

  #unwanted() {
    const wanted = this.#handlers.wanted();
    return this.#client.channels.filter((name) => !wanted.has(name));
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timers.join);
    clearTimeout(this.#timers.leave);
    this.#client.close();
  }
}

/** Replaces an error that a browser cannot send to other tabs: an app may throw anything. @param {StateChange} detail */
function sendable(detail) {
  try {
    structuredClone(detail.error);
    return detail;
  } catch {
    return { ...detail, error: new Error("the app threw an error that cannot be sent to other tabs") };
  }
}
