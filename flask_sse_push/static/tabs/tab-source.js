// @ts-check
/**
 * A source that shares one connection with the other tabs of the browser: a *member* of the page's hub. It begins with
 * a connection of its own, so the server decides for each page what its user may listen to. It shares as soon as
 * there is another member with the same user.
 * @import * as T from "../sources/source.js"
 * @import { Carrier, Leader, Member, TabRefusal } from "./messages.js"
 * @import { TabHub } from "./hub.js"
 */

import { Source as FetchSource } from "../sources/fetch.js";
import { ChannelChanges } from "./channel-changes.js";
import { comparable, EARLIEST, reached } from "./cursor.js";
import { canShare, loadHub } from "./hub-loader.js";
import { acquirePermit } from "./permits.js";
import { TabChannels } from "./tab-channels.js";
import { warnIfSilent } from "./waiting.js";

/**
 * At most how many own connections all tabs together may have. A browser opens six connections to a server. If the
 * tabs' own connections took all six, the leader could not connect, and no tab could give up its own connection.
 */
const MAX_OWN = 3;

/** Parameters in which the tabs that share a connection may differ. */
const OF_A_TAB = ["channels", "last_event_id", "lastEventId", "last", "batch", "tagged"];

/** Divides the id of a tab: before it, the id of the shared stream. No channel's name has it. */
const TAB_MARK = "~";

/**
 * @implements {T.Source}
 * @implements {Member}
 * @implements {Carrier}
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
  #changes;
  #channels;
  #cursor;
  /** @type {string | undefined} The shared connection whose events `owed` counts. */ #counted;
  #owed = ""; // the cursor of its newest event of these channels, or after which it began

  /** @param {string} url @param {T.Options} options @param {T.Sink} sink */
  constructor(url, options, sink) {
    this.#url = new URL(url);
    this.#options = options;
    this.#sink = sink;
    this.#cursor = this.#url.searchParams.get("last_event_id") ?? "";
    this.#url.searchParams.set("tagged", "1");
    this.#base = new URL(this.#url);
    for (const parameter of OF_A_TAB) this.#base.searchParams.delete(parameter);
    this.#changes = ChannelChanges.of(sink.trouble, this.#base, options);
    this.#channels = new TabChannels(this.#changes.decided(this.#url.searchParams));
    this.#openOwn();
  }

  get channels() {
    return this.#channels.joined;
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
    this.#closeOwn();
    this.#shared = false;
    this.#changes.onConnection(undefined, null);
    this.#leave();
  }

  #closeOwn() {
    this.#own?.abort();
    this.#own = null;
  }

  #leave() {
    this.#hub?.remove(this);
    this.#hub = null;
  }

  /** Whether the connection has a channel, or will have it. @param {string} name */
  has(name) {
    return this.#channels.asked.has(name);
  }

  /** Must be called when the server lets the tab join channels. @param {string[]} names */
  grant(names) {
    this.#channels.grant(names);
  }

  /** Leaves channels. Returns false if the server must leave them too. @param {string[]} names */
  drop(names) {
    const left = this.#channels.drop(names);
    if (!this.#shared || !left.length) return this.#shared;
    this.#onChannels({ left });
    this.#emit("sse.channels", { channels: [...this.channels], joined: [], left });
    return true;
  }

  /** Opens another own connection. */
  reopen() {
    this.#closeOwn();
    this.#openOwn();
  }

  /** @param {{ joined?: string[], left?: string[] }} change */
  #onChannels(change) {
    this.#channels.apply(change);
    this.#hub?.updateWanted();
  }

  // -- called by the hub

  /** @param {Leader} leader */
  onLeader(leader) {
    const carried = [...this.channels].every((name) => leader.channels.includes(name));
    const isNew = !this.#shared || this.#connection !== leader.connection;
    // A join that the previous connection has not answered is lost with it. An own connection asks for it again.
    const isLost = this.#shared && isNew && this.#channels.isJoining;
    if (this.#counted !== leader.connection) this.#owed = leader.cursor;
    this.#counted = leader.connection;
    const hasAll = reached(this.#cursor, this.#shared ? leader.cursor : this.#owed);
    const isChanging = !this.#shared && this.#channels.isChanging; // the own connection must stay until then
    if (isLost || isChanging || !hasAll) this.#openOwn();
    else if (carried && isNew) this.#share(leader);
  }

  /** @param {T.RawEvent} event An event of the shared connection; it names its channels and the excluded tabs. */
  onMessage(event) {
    if (!this.#shared) return this.#onEventOfOthers(event);
    const { type, data, id, channels, skipped = false, marks = false } = event;
    const known = Boolean(id) && reached(this.#cursor, /** @type {string} */ (id));
    if (id && !known) this.#cursor = id;
    if (!this.#listensTo(channels)) return;
    if ((known && !/^sse\.(heartbeat|error)$/.test(`${type}`)) || channels?.includes(this.#tab)) return;
    const own = !skipped && type?.startsWith("sse.") ? this.#ownData(type, data) : data;
    if (own !== null) this.#pass({ ...event, data: own, id: this.#cursor, skipped, marks });
  }

  /**
   * Notes an event of the shared connection that this stream gets on its own connection. The stream may share once it
   * has had the event. Events of other channels do not count, so a stream with quiet channels shares at once.
   * @param {T.RawEvent} event
   */
  #onEventOfOthers({ type = "message", id, channels }) {
    const concerns = type.startsWith("sse.") ? type === "sse.reset" : this.#listensTo(channels);
    if (id && concerns) this.#owed = id;
    this.#shareIfReady();
  }

  #shareIfReady() {
    if (this.#hub?.leader.open) this.onLeader(this.#hub.leader);
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
    this.#changes.onConnection(this, null);
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
    this.#channels.begin(this.#channels.asked);
    this.#leave();
    this.#openOwn();
  }

  /** @param {Leader} leader */
  #share({ connection, heartbeat, resumed, secret, poll, marks, cursor }) {
    this.#closeOwn();
    // A tab that had its own connection until now has missed nothing.
    const missed = this.#shared && !resumed;
    const isFirst = !this.#shared;
    this.#shared = true;
    if (isFirst) this.#hub?.updateWanted(); // this stream needs no earlier events any more
    if (reached(cursor, this.#cursor)) this.#cursor = cursor; // the events up to there are of other channels
    this.#connection = connection ?? "";
    const id = this.#connection + this.#tab;
    const opening = { connection: id, channels: [...this.channels], resumed: !missed, heartbeat, secret, poll };
    this.#sink.trouble.poll = poll;
    this.#channels.begin();
    this.#changes.onConnection(this, opening);
    this.#emit("sse.open", opening, marks);
  }

  /** @param {string} type @param {object} data @param {boolean} [marks] Whether the server marks JSON. */
  #emit(type, data, marks) {
    this.#sink.event({ type, data: JSON.stringify(data) + (marks ? "\t" : ""), id: this.#cursor });
  }

  async #openOwn() {
    if (this.#own) return;
    this.#shared = false;
    this.#changes.onConnection(this, null);
    const own = (this.#own = new AbortController());
    const permit = new AbortController();
    const answered = new AbortController();
    own.signal.addEventListener("abort", () => [permit, answered].forEach((each) => each.abort()));
    if (this.#mayShare) await acquirePermit(`sse-push:${this.#base}/own`, MAX_OWN, permit.signal);
    if (own.signal.aborted) return;
    warnIfSilent(this.#mayShare, answered.signal);
    const query = this.#url.searchParams;
    if (this.#cursor) query.set("last_event_id", this.#cursor);
    const asked = [...this.#channels.asked];
    if (query.has("channels") || asked.length > 1) query.set("channels", asked.join());
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
    if (event.type === "sse.open") this.#changes.onConnection(this, objectIn(event.data));
    this.#pass(event);
    if (ended.aborted) return; // a handler closed the client
    if (event.type === "sse.channels") this.#onOwnChannels(objectIn(event.data), permit);
    if (event.type === "sse.open") this.#onOwnOpen(objectIn(event.data), ended, permit);
    else if (this.#hub && !this.#isComparable) this.#neverShare(permit);
    else this.#shareIfReady();
  }

  /**
   * A stream that the app has given channels must stay: only the app knows how to give them to another stream.
   * @param {{ joined: string[], left: string[] }} change @param {AbortController} permit
   */
  #onOwnChannels(change, permit) {
    const isAsked = change.joined?.every((name) => this.has(name) || this.#changes.isUndecided(name));
    if (isAsked) return this.#onChannels(change);
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
    if (Array.isArray(channels)) this.#channels.begin(channels);
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
    const module = this.#mayShare ? await loadHub(ended, permit) : null;
    if (ended.aborted) return;
    const hub = (this.#mayShare && module?.TabHub.of(this.#base, this.#options, user ?? "")) || null;
    if (hub !== this.#hub) this.#leave();
    if (!hub) return permit.abort();
    this.#hub = hub;
    hub.add(this);
  }

  /** Returns the part of a protocol event that is for this stream, or null. @param {string} type @param {string} data */
  #ownData(type, data) {
    const { tab, ...content } = objectIn(data);
    if (tab ? tab !== this.#tab : type === "sse.channels") return null;
    if (type === "sse.error" && content.details?.channel && !this.channels.has(content.details.channel)) return null;
    if (type === "sse.channels") {
      this.#onChannels(content);
      content.channels = [...this.channels];
    } else if (type === "sse.reset" && !tab) {
      const { channels: lost = ["*"] } = content;
      content.channels = [...this.channels].filter((name) => lost.includes("*") || lost.includes(name));
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
