// @ts-check
/**
 * A source that shares one connection with all tabs of the browser: a *member* of the page's hub. While it cannot
 * share, it has a connection of its own.
 * @import { Options } from "../push-client.js"
 * @import { Ending, RawEvent, Sink, Source as OneConnection } from "../sources/source.js"
 * @import { Leader, Member, TabRefusal } from "./messages.js"
 */

import { Source as FetchSource } from "../sources/fetch.js";
import { reached } from "./cursor.js";
import { TabHub } from "./hub.js";

/** How long to wait for the shared connection before the source opens its own connection, in milliseconds. */
const MAX_WAIT = 2000;

/**
 * At most how many own connections all tabs together may have. A browser opens six connections to a server. If the
 * tabs' own connections took all six, the leader could not connect, and no tab could give up its own connection.
 */
const MAX_OWN = 3;

/**
 * @implements {OneConnection}
 * @implements {Member}
 */
export class Source {
  #url;
  #options;
  #sink;
  /** @type {TabHub | null} */
  #hub = null;
  /** @type {AbortController | null} Ends the own connection, or the wait for one. */
  #own = null;
  #shared = false;
  #opened = false; // whether the client has had its `sse.open`
  #leaderWaits = false; // the shared connection is between two attempts
  #cursor;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} url @param {Options} options @param {Sink} sink */
  constructor(url, options, sink) {
    this.#url = new URL(url);
    this.#options = options;
    this.#sink = sink;
    const query = this.#url.searchParams;
    this.channels = new Set((query.get("channels") ?? "sse").split(","));
    this.#cursor = query.get("last_event_id") ?? "";
    if (!globalThis.navigator?.locks || !globalThis.BroadcastChannel) {
      this.#openOwn();
      return;
    }
    this.#timer = setTimeout(() => this.#openOwn(), MAX_WAIT);
    this.#hub = TabHub.of(this.#url, options);
    this.#hub.add(this);
  }

  /** The cursor up to which this stream has had every event; "" before it has one. */
  get cursor() {
    return this.#cursor;
  }

  close() {
    clearTimeout(this.#timer);
    this.#own?.abort();
    this.#hub?.remove(this);
  }

  /**
   * Changes the channels. Events of a new channel arrive as soon as the shared connection carries this channel.
   * @param {Set<string>} channels
   */
  change(channels) {
    if (!this.#shared) return false;
    this.channels = new Set(channels);
    this.#hub?.updateWanted();
    return true;
  }

  // -- called by the hub

  /** @param {Leader} leader */
  onLeader(leader) {
    const upToDate = !this.#cursor || reached(this.#cursor, leader.cursor);
    const carried = [...this.channels].every((name) => leader.channels.includes(name));
    if (!upToDate) this.#openOwn();
    else if (carried && !this.#shared) this.#share(leader);
    else if (carried && this.#leaderWaits) this.#reportOpen(leader, leader.resumed === true);
  }

  /** @param {RawEvent} event An event of the shared connection; it names its channels. */
  onMessage({ type, data, id, channels, skipped = false, marks = false }) {
    if (!this.#shared) return;
    const known = Boolean(id) && reached(this.#cursor, /** @type {string} */ (id));
    if (id && !known) this.#cursor = id;
    if (channels && !channels.includes("*") && !channels.some((name) => this.channels.has(name))) return;
    if (known && type !== "sse.heartbeat") return;
    const own = type === "sse.reset" ? this.#ownReset(data) : data;
    // A leader whose page is of an older version says nothing of marks. It sends all data as JSON, without marks.
    if (own !== null) this.#sink.event({ type, data: own, id: this.#cursor, channels, skipped, marks });
  }

  /** @param {Ending} detail */
  onWaiting(detail) {
    if (!this.#shared) return;
    this.#leaderWaits = true;
    this.#opened = false;
    this.#sink.waiting(detail);
  }

  /** @param {TabRefusal} refusal Concerns this stream if it names one of this stream's channels, or no channel. */
  onRefusal({ channel, ...ending }) {
    if (this.#own || (channel && !this.channels.has(channel))) return;
    if (ending.status) this.#sink.fail({ ...ending, final: true });
    else this.#emit("sse.close", { reason: ending.reason, reconnect: false });
  }

  // -- shared or own connection

  /** @param {Leader} leader */
  #share(leader) {
    clearTimeout(this.#timer);
    this.#own?.abort();
    this.#own = null;
    this.#shared = true;
    if (this.#opened) return;
    const resumed = this.#cursor !== "";
    this.#cursor ||= leader.cursor;
    this.#reportOpen(leader, resumed);
  }

  /** @param {Leader} leader @param {boolean} resumed */
  #reportOpen({ connection, heartbeat }, resumed) {
    this.#leaderWaits = false;
    this.#opened = true;
    this.#emit("sse.open", { connection, channels: [...this.channels], resumed, heartbeat });
  }

  /** @param {string} type @param {object} data */
  #emit(type, data) {
    this.#sink.event({ type, data: JSON.stringify(data), id: this.#cursor });
  }

  async #openOwn() {
    clearTimeout(this.#timer);
    if (this.#own) return;
    this.#shared = this.#leaderWaits = false;
    const own = (this.#own = new AbortController());
    await this.#hub?.acquirePermit(MAX_OWN, own.signal);
    if (own.signal.aborted) return;
    const query = this.#url.searchParams;
    if (this.#cursor) query.set("last_event_id", this.#cursor);
    const source = new FetchSource(this.#url.href, this.#options, {
      ...this.#sink,
      fail: (ending) => {
        if (!own.signal.aborted) this.#sink.fail(ending); // giving up a connection is not a failure
      },
      event: (event) => {
        if (!own.signal.aborted) this.#onOwnEvent(event);
      },
    });
    own.signal.addEventListener("abort", () => source.close());
  }

  /** Uses the shared connection once this stream has had every event that came on it. @param {RawEvent} event */
  #onOwnEvent(event) {
    if (event.id) this.#cursor = event.id;
    this.#opened ||= event.type === "sse.open";
    this.#sink.event(event);
    const leader = this.#hub?.leader;
    if (this.#own && leader?.open) this.onLeader(leader);
  }

  /** Returns a reset's data with this stream's channels only; null if it names none of them. @param {string} data */
  #ownReset(data) {
    /** @type {{ channels: string[] }} */
    const reset = JSON.parse(data);
    const all = reset.channels.includes("*");
    const channels = all ? [...this.channels] : reset.channels.filter((name) => this.channels.has(name));
    return channels.length ? JSON.stringify({ ...reset, channels }) : null;
  }
}
