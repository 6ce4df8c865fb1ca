// @ts-check
/**
 * The connection in the leader's tab. It carries the channels that all tabs want together, and the server names the
 * channels of each event.
 * @import { Options, StateChange } from "../push-client.js"
 * @import { RawEvent } from "../sources/source.js"
 * @import { Leader } from "./messages.js"
 */

import { PushClient } from "../push-client.js";
import { earlier, reached } from "./cursor.js";

/**
 * How long to wait before the channels change, in milliseconds, so that the changes of several tabs are sent together.
 * `late` is the time in which a tab's own connection may bring what the tab lacks before it can share.
 */
export const GATHER = { join: 20, late: 1000, leave: 5000 };

/**
 * @typedef {object} ConnectionHandlers
 * @property {() => Set<string>} wanted The channels that all tabs want together.
 * @property {() => string} neededAfter The cursor after which the joined channels are needed.
 * @property {(opening: Partial<Leader>, user: string | null) => void} onOpen `user` is the
 *   server's name for the user of the connection.
 * @property {(event: RawEvent) => void} onEvent
 * @property {(detail: StateChange) => void} onWaiting The connection is between two attempts.
 * @property {(detail: StateChange) => void} onClosed The server ended the connection for good.
 */

export class SharedConnection {
  #base;
  #options;
  #handlers;
  /** @type {PushClient | undefined} Undefined once this connection is closed. */ #client;
  #cursor = "";
  /** @type {Record<string, ReturnType<typeof setTimeout> | undefined>} */
  #timers = {};

  /**
   * @param {URL} base The stream's address without channels.
   * @param {Options} options
   * @param {string} cursor
   * @param {ConnectionHandlers} handlers
   */
  constructor(base, options, cursor, handlers) {
    this.#base = base;
    this.#options = options;
    this.#handlers = handlers;
    this.#open(cursor);
  }

  /** @param {string} cursor */
  #open(cursor) {
    this.#cursor = cursor;
    const url = new URL(this.#base);
    url.searchParams.set("tagged", "1");
    const channels = this.#handlers.wanted();
    const own = { tabs: false, batch: 0, channels, lastEventId: cursor, page: false, remember: false };
    const client = (this.#client = new PushClient(url, { ...this.#options, ...own, transport: "fetch" }));
    this.#passOn(client);
  }

  /** @param {PushClient} client */
  #passOn(client) {
    let marks = false;
    client.on("*", ({ type, data, text, lastEventId: id, channels }) => {
      if (client !== this.#client) return;
      if (type === "sse.open") {
        const { connection, heartbeat, resumed, secret, poll, user } = data;
        marks = text.endsWith("\t");
        const opening = { connection, heartbeat, resumed, secret, poll, marks };
        this.#handlers.onOpen({ channels: client.channels, cursor: this.#cursor || id, ...opening }, user);
      } else if (type !== "sse.close") {
        this.#cursor = id || this.#cursor;
        this.#handlers.onEvent({ type, data: text, id, channels, marks });
      }
      this.#cursor ||= id;
    });
    client.addEventListener("error", ({ detail }) => {
      const { type, reason, size, error, lastEventId: id, channels } = detail;
      if (client !== this.#client || !type) return; // only the error about a skipped event has a type
      this.#handlers.onEvent({ type, data: "", id, channels, skipped: { reason, size, error } });
    });
    client.addEventListener("statechange", ({ detail }) => {
      if (client !== this.#client) return;
      if (detail.state === "waiting") this.#handlers.onWaiting(sendable(detail));
      if (detail.state === "closed") this.#handlers.onClosed(sendable(detail));
    });
  }

  /** Joins the channels that a tab wants, and leaves the channels that no tab wants. Both happen after a delay. */
  adapt() {
    if (this.#missing().length) this.#later("join", () => this.#missing().length && this.#reopen());
    if (this.#beganLate()) this.#later("late", () => this.#beganLate() && this.#reopen());
    // A stream without channels listens to the default channel, so the last channels stay.
    if (this.#handlers.wanted().size && this.#unwanted().length) {
      this.#later("leave", () => this.#unwanted().length && this.#client?.leave(...this.#unwanted()));
    }
  }

  /**
   * Connects again with the wanted channels. The connection begins early enough for the tabs that bring them: they have
   * had every event up to their cursors, and the others skip what they know.
   */
  #reopen() {
    const cursor = earlier(this.#handlers.neededAfter(), this.#cursor);
    const client = this.#client;
    this.#client = undefined; // from now on, its events are not passed on
    client?.close();
    this.#open(cursor);
  }

  /** Whether this connection has passed on events that a tab may lack which does not share yet. */
  #beganLate() {
    const after = this.#handlers.neededAfter();
    return Boolean(after) && !reached(after, this.#cursor);
  }

  /** @param {keyof GATHER} kind @param {() => unknown} change */
  #later(kind, change) {
    this.#timers[kind] ??= setTimeout(() => {
      this.#timers[kind] = undefined;
      change();
    }, GATHER[kind]);
  }

  #missing() {
    return [...this.#handlers.wanted()].filter((name) => !this.#client?.channels.includes(name));
  }

  #unwanted() {
    const wanted = this.#handlers.wanted();
    return this.#client?.channels.filter((name) => !wanted.has(name)) ?? [];
  }

  close() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const client = this.#client;
    this.#client = undefined;
    client?.close();
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
