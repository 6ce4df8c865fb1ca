// @ts-check
/**
 * A source that shares one connection with the other tabs of the browser: a *member* of the page's hub. It begins with
 * a connection of its own, so the server decides for each page what its user may listen to. It shares as soon as
 * there is another member with the same user.
 * @import * as T from "../sources/source.js"
 * @import { Leader, Member, TabRefusal } from "./messages.js"
 * @import { TabHub } from "./hub.js"
 */

import { Source as FetchSource } from "../sources/fetch.js";
import { comparable, reached } from "./cursor.js";
import { acquirePermit } from "./permits.js";
import { warnIfSilent } from "./waiting.js";

/**
 * At most how many own connections all tabs together may have. A browser opens six connections to a server. If the
 * tabs' own connections took all six, the leader could not connect, and no tab could give up its own connection.
 */
const MAX_OWN = 3;

/** Parameters in which the tabs that share a connection may differ. */
const OF_A_TAB = ["channels", "last_event_id", "lastEventId", "last", "batch", "tagged"];

/** The cursor of a stream that begins with all kept events, until its first event. */
const EARLIEST = "earliest";

/** Divides the id of a tab: before it, the id of the shared stream. Names of channels have no such character. */
const TAB_MARK = "~";

/** Browsers offer Web Locks only on pages with HTTPS or on localhost, and not in sandboxed frames. */
const canShare = () => Boolean(globalThis.navigator?.locks && globalThis.BroadcastChannel && globalThis.origin !== "null");

/**
 * @implements {T.Source}
 * @implements {Member}
 */
export class Source {
  #url;
  #base;
  #options;
  #sink;
  #tab = TAB_MARK + Math.random().toString(36).slice(2); // the end of the id that this tab has on a shared stream
  #connection = ""; // the id of the shared connection
  /** @type {TabHub | null} */ #hub = null;
  /** @type {AbortController | null} Ends the own connection, or the wait for a permit. */ #own = null;
  #shared = false;
  #mayShare = canShare();
  /** @type {Set<string>} The channels that the client asks for. `channels` also has those that the app joined. */
  #asked;
  #cursor;
  /** @type {string | undefined} The shared connection whose events `owed` counts. */ #counted;
  #owed = ""; // the cursor of its newest event of these channels, or after which it began

  /** @param {string} url @param {T.Options} options @param {T.Sink} sink */
  constructor(url, options, sink) {
    this.#url = new URL(url);
    this.#options = options;
    this.#sink = sink;
    this.channels = new Set((this.#url.searchParams.get("channels") ?? "sse").split(","));
    this.#asked = new Set(this.channels);
    this.#cursor = this.#url.searchParams.get("last_event_id") ?? "";
    this.#url.searchParams.set("tagged", "1");
    this.#base = new URL(this.#url);
    for (const parameter of OF_A_TAB) this.#base.searchParams.delete(parameter);
    this.#openOwn();
  }

  /** The cursor up to which this stream has had every event; "" before it has one. */
  get cursor() {
    return this.#cursor;
  }

  /** The cursor after which the shared connection must carry the channels, so that this stream can use it. */
  get neededAfter() {
    return this.#shared || !comparable(this.#cursor) ? "" : this.#cursor;
  }

  close() {
    this.#own?.abort();
    this.#own = null;
    this.#shared = false;
    this.#leave();
  }

  #leave() {
    this.#hub?.remove(this);
    this.#hub = null;
  }

  /**
   * Leaves channels. To join a channel the page must ask the server, which answers with `sse.channels`.
   * @param {Set<string>} channels
   */
  change(channels) {
    this.#asked = channels;
    const joins = [...channels].some((name) => !this.channels.has(name));
    if (joins || !this.#shared) return false;
    const left = [...this.channels].filter((name) => !channels.has(name));
    this.#onChannels({ joined: [], left });
    if (left.length) this.#emit("sse.channels", { channels: [...channels], joined: [], left });
    return true;
  }

  /** @param {{ joined?: string[], left?: string[] }} change */
  #onChannels({ joined = [], left = [] }) {
    this.channels = new Set([...this.channels, ...joined].filter((name) => !left.includes(name)));
    this.#hub?.updateWanted();
  }

  /** Whether the server still has to join channels. */
  get #isJoining() {
    return [...this.#asked].some((name) => !this.channels.has(name));
  }

  /** Whether the server still has to change the channels of the own connection, which must stay until then. */
  get #isChanging() {
    return !this.#shared && (this.#asked.size !== this.channels.size || this.#isJoining);
  }

  // -- called by the hub

  /** @param {Leader} leader */
  onLeader(leader) {
    const carried = [...this.channels].every((name) => leader.channels.includes(name));
    const isNew = !this.#shared || this.#connection !== leader.connection;
    // A join that the previous connection has not answered is lost with it. An own connection asks for it again.
    const isLost = this.#shared && isNew && this.#isJoining;
    if (this.#counted !== leader.connection) this.#owed = leader.cursor;
    this.#counted = leader.connection;
    const hasAll = reached(this.#cursor, this.#shared ? leader.cursor : this.#owed);
    if (isLost || this.#isChanging || !hasAll) this.#openOwn();
    else if (carried && isNew) this.#share(leader);
  }

  /** @param {T.RawEvent} event An event of the shared connection; it names its channels and the excluded tabs. */
  onMessage(event) {
    if (!this.#shared) return this.#noteOwed(event);
    const { type, data, id, channels, skipped = false, marks = false } = event;
    const known = Boolean(id) && reached(this.#cursor, /** @type {string} */ (id));
    if (id && !known) this.#cursor = id;
    if (!this.#listensTo(channels)) return;
    if ((known && type !== "sse.heartbeat") || channels?.includes(this.#tab)) return;
    const own = !skipped && type?.startsWith("sse.") ? this.#ownData(type, data) : data;
    if (own !== null) this.#pass({ ...event, data: own, id: this.#cursor, skipped, marks });
  }

  /**
   * Notes an event of the shared connection that this stream gets on its own connection. The stream may share once it
   * has had the event. Events of other channels do not count, so a stream with quiet channels shares at once.
   * @param {T.RawEvent} event
   */
  #noteOwed({ type = "message", id, channels }) {
    const concerns = type.startsWith("sse.") ? type === "sse.reset" : this.#listensTo(channels);
    if (id && concerns) this.#owed = id;
  }

  /** @param {string[] | undefined} channels The channels of an event. */
  #listensTo(channels) {
    return !channels || channels.includes("*") || channels.some((name) => this.channels.has(name));
  }

  /** @param {T.RawEvent} event */
  #pass({ channels, ...event }) {
    const named = channels?.filter((name) => !name.startsWith(TAB_MARK));
    this.#sink.event(named ? { ...event, channels: named } : event);
  }

  /** @param {T.Ending} detail */
  onWaiting(detail) {
    if (!this.#shared) return;
    this.#connection = "";
    this.#sink.waiting(detail);
  }

  /** @param {TabRefusal} refusal Concerns this stream if it names one of this stream's channels, or no channel. */
  onRefusal({ channel, status, reason }) {
    if (!this.#shared || (channel && !this.channels.has(channel))) return;
    if (status) this.#openUnshared(); // the server tells each page what it refuses
    else this.#emit("sse.close", { reason, reconnect: false });
  }

  /** The shared connection has another user now, so the server must say who the user of this page is. */
  onOtherUser() {
    this.#leave();
    this.#openOwn();
  }

  // -- shared or own connection

  #openUnshared() {
    this.#mayShare = false;
    this.channels = new Set(this.#asked);
    this.#leave();
    this.#openOwn();
  }

  /** @param {Leader} leader */
  #share({ connection, heartbeat, resumed, secret, marks, cursor }) {
    this.#own?.abort();
    this.#own = null;
    // A tab that had its own connection until now has missed nothing.
    const missed = this.#shared && !resumed;
    const isFirst = !this.#shared;
    this.#shared = true;
    if (isFirst) this.#hub?.updateWanted(); // this stream needs no earlier events any more
    if (reached(cursor, this.#cursor)) this.#cursor = cursor; // the events up to there are of other channels
    this.#connection = connection ?? "";
    const opening = { channels: [...this.channels], resumed: !missed, heartbeat, secret };
    this.#emit("sse.open", { connection: this.#connection + this.#tab, ...opening }, marks);
  }

  /** @param {string} type @param {object} data @param {boolean} [marks] Whether the server marks JSON. */
  #emit(type, data, marks) {
    this.#sink.event({ type, data: JSON.stringify(data) + (marks ? "\t" : ""), id: this.#cursor });
  }

  async #openOwn() {
    if (this.#own) return;
    this.#shared = false;
    const own = (this.#own = new AbortController());
    const permit = new AbortController();
    const answered = new AbortController();
    own.signal.addEventListener("abort", () => [permit, answered].forEach((each) => each.abort()));
    if (this.#mayShare) await acquirePermit(`sse-push:${this.#base}/own`, MAX_OWN, permit.signal);
    if (own.signal.aborted) return;
    warnIfSilent(this.#mayShare, answered.signal);
    const query = this.#url.searchParams;
    if (this.#cursor) query.set("last_event_id", this.#cursor);
    if (query.has("channels") || this.#asked.size > 1) query.set("channels", [...this.#asked].join());
    const source = new FetchSource(this.#url.href, this.#options, {
      ...this.#sink,
      fail: (ending) => {
        if (!own.signal.aborted) this.#sink.fail(ending); // giving up a connection is not a failure
      },
      event: (event) => {
        answered.abort();
        if (!own.signal.aborted) this.#onOwnEvent(event, own.signal, permit);
      },
    });
    own.signal.addEventListener("abort", () => source.close());
  }

  /**
   * Uses the shared connection once this stream has had every event that came on it.
   * @param {T.RawEvent} event @param {AbortSignal} ended @param {AbortController} permit
   */
  #onOwnEvent(event, ended, permit) {
    if (event.id) this.#cursor = event.id;
    this.#pass(event);
    if (ended.aborted) return; // a handler closed the client
    if (event.type === "sse.channels") this.#onOwnChannels(objectIn(event.data), permit);
    if (event.type === "sse.open") this.#onOwnOpen(objectIn(event.data), ended, permit);
    else if (this.#hub && !this.#isComparable) this.#neverShare(permit);
    else if (this.#hub?.leader.open) this.onLeader(this.#hub.leader);
  }

  /**
   * A stream that the app has given channels must stay: only the app knows how to give them to another stream.
   * @param {{ joined: string[], left: string[] }} change @param {AbortController} permit
   */
  #onOwnChannels(change, permit) {
    if (change.joined?.every((name) => this.#asked.has(name))) return this.#onChannels(change);
    this.#neverShare(permit);
  }

  /** Keeps the own connection for good. The permit is then for other tabs. @param {AbortController} permit */
  #neverShare(permit) {
    this.#mayShare = false;
    this.#leave();
    permit.abort();
  }

  /** Whether the cursor shows how far this stream is. On several shards, and of old servers, it does not. */
  get #isComparable() {
    return this.#cursor === EARLIEST || comparable(this.#cursor);
  }

  /** @param {T.Opening & { user?: string | null }} opening @param {AbortSignal} ended @param {AbortController} permit */
  #onOwnOpen({ channels, user }, ended, permit) {
    if (Array.isArray(channels)) this.channels = new Set(channels);
    this.#join(user, ended, permit);
  }

  /**
   * Joins the hub of the user. If this stream can never share, its permit is for other tabs.
   * @param {string | null | undefined} user Left out by an older server.
   * @param {AbortSignal} ended @param {AbortController} permit
   */
  async #join(user, ended, permit) {
    const cannot = user === undefined || !this.#isComparable || this.#base.searchParams.has("ticket");
    this.#mayShare &&= !cannot;
    const module = this.#mayShare ? await import("./hub.js").catch(() => null) : null;
    if (ended.aborted) return;
    const hub = module?.TabHub.of(this.#base, this.#options, user ?? "") ?? null;
    if (hub !== this.#hub) this.#leave();
    if (!hub) return permit.abort();
    this.#hub = hub;
    hub.add(this);
  }

  /**
   * Returns the part of the protocol's own event that is for this stream; null if there is none.
   * @param {string} type @param {string} data
   */
  #ownData(type, data) {
    const { tab, ...content } = objectIn(data);
    if (tab ? tab !== this.#tab : type === "sse.channels") return null;
    if (type === "sse.channels") {
      this.#onChannels(content);
      content.channels = [...this.channels];
    } else if (type === "sse.reset" && !tab) {
      const { channels = ["*"] } = content;
      const all = channels.includes("*");
      content.channels = [...this.channels].filter((name) => all || channels.includes(name));
      if (!content.channels.length) return null;
    }
    return JSON.stringify(content);
  }
}

/** Returns the object that is written in the data of an event; {} if there is none. @param {string} text @returns {any} */
function objectIn(text) {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}
