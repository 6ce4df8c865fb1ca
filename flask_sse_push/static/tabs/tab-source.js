/** A connection that all tabs of a browser share: a *member* of the page's hub, or one of its own where sharing
 * cannot work. */

import { reached } from "./cursor.js";
import { FetchSource } from "../sources/fetch.js";
import { TabHub } from "./hub.js";

/** Ms until a stream that has no place in the shared connection opens its own for the time being. */
const PATIENCE = 2000;

/** How many such connections all tabs together have at a time. A browser opens six to a server: were all of them
 * taken, the shared one could not be renewed, and none of these would ever be given up. */
const ALONE = 3;

export class TabSource {
  #url;
  #request;
  #sink;
  #hub = null;
  #alone = null; // ends a connection of this stream alone, or the wait for one
  #shared = false;
  #opened = false; // whether the client was told that its stream is open
  #waits = false; // the shared connection is being renewed
  #last; // the cursor up to which this stream has had everything
  #timer = 0;

  constructor(url, request, sink) {
    this.#url = new URL(url);
    this.#request = request;
    this.#sink = sink;
    const query = this.#url.searchParams;
    this.channels = new Set((query.get("channels") ?? "sse").split(","));
    this.#last = query.get("last_event_id") ?? "";
    if (!navigator.locks || !globalThis.BroadcastChannel) {
      this.#goAlone();
      return;
    }
    this.#timer = setTimeout(() => this.#goAlone(), PATIENCE);
    this.#hub = TabHub.of(this.#url, request);
    this.#hub.add(this);
  }

  /** The cursor of this stream; "" before it has one. */
  get last() {
    return this.#last;
  }

  close() {
    clearTimeout(this.#timer);
    this.#alone?.abort();
    this.#hub?.remove(this);
  }

  /** Changes what it listens to; what is new begins when the shared connection carries it. */
  change(channels) {
    if (!this.#shared) return false;
    this.channels = new Set(channels);
    this.#hub.wish();
    return true;
  }

  // -- what the hub tells

  /** The shared connection stands, and carries `lead.channels` from the cursor `lead.at` on. */
  place(lead) {
    const carried = [...this.channels].every((name) => lead.channels.includes(name));
    const exact = !this.#last || reached(this.#last, lead.at);
    if (exact && carried) {
      if (!this.#shared) this.#share(lead);
      else if (this.#waits) this.#open(lead, lead.resumed);
    } else if (!exact) {
      this.#goAlone();
    }
  }

  /** A message of the shared connection; events name their channels. */
  hear({ type, text, id, channels }) {
    if (!this.#shared) return;
    if (channels && !channels.includes("*") && !channels.some((name) => this.channels.has(name))) {
      if (id && !reached(this.#last, id)) this.#last = id;
      return;
    }
    const known = id && reached(this.#last, id);
    if (known && type !== "sse.heartbeat") return;
    if (id && !known) this.#last = id;
    if (type === "sse.reset") text = this.#mine(text);
    if (text) this.#sink.event(type, text, this.#last, channels);
  }

  /** The shared connection is between two connections. */
  wait(detail) {
    if (!this.#shared) return;
    this.#waits = true;
    this.#opened = false;
    this.#sink.state("waiting", detail);
  }

  /** The server wants none of it, for one of this stream's channels or for all. */
  refuse({ channel, ...told }) {
    if (this.#alone || (channel && !this.channels.has(channel))) return;
    if (told.status) this.#sink.fail(told);
    else this.#sink.event("sse.close", JSON.stringify({ reason: told.reason, reconnect: false }), this.#last);
  }

  // -- shared or alone

  #share(lead) {
    clearTimeout(this.#timer);
    this.#alone?.abort();
    this.#alone = null;
    this.#shared = true;
    if (this.#opened) return;
    const resumed = this.#last !== "";
    this.#last ||= lead.at;
    this.#open(lead, resumed);
  }

  #open({ connection, heartbeat }, resumed) {
    this.#waits = false;
    this.#opened = true;
    const opening = { connection, channels: [...this.channels], resumed, heartbeat };
    this.#sink.event("sse.open", JSON.stringify(opening), this.#last);
  }

  async #goAlone() {
    clearTimeout(this.#timer);
    if (this.#alone) return;
    this.#shared = this.#waits = false;
    const alone = (this.#alone = new AbortController());
    await this.#hub?.stepAside(ALONE, alone.signal);
    if (alone.signal.aborted) return;
    const query = this.#url.searchParams;
    if (this.#last) query.set("last_event_id", this.#last);
    const own = new FetchSource(this.#url.href, this.#request, {
      ...this.#sink,
      fail: (told) => alone.signal.aborted || this.#sink.fail(told), // one that was closed has not failed
      event: (type, text, id, channels) => {
        if (alone.signal.aborted) return;
        if (id) this.#last = id;
        this.#opened ||= type === "sse.open";
        this.#sink.event(type, text, id, channels);
        this.#returnToOthers();
      },
    });
    alone.signal.addEventListener("abort", () => own.close());
  }

  /** Once it knows as much as the shared connection has told, all that follows comes there. */
  #returnToOthers() {
    const lead = this.#hub?.lead;
    if (this.#alone && lead?.open) this.place(lead);
  }

  #mine(text) {
    const reset = JSON.parse(text);
    const all = reset.channels.includes("*");
    const channels = all ? [...this.channels] : reset.channels.filter((name) => this.channels.has(name));
    return channels.length ? JSON.stringify({ ...reset, channels }) : "";
  }
}
