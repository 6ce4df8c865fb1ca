// @ts-check
/**
 * A page's part in the connection that all tabs of a browser share.
 *
 * Each page sends the channels it wants. The leader's connection carries the channels of all pages; the leader sends
 * each event to all pages, and a page takes the events of its own channels. Every page keeps the cursor, so that the
 * next leader continues after it. A page hears the leader's messages in order. A new leader has a higher term
 * (a number), and pages ignore messages of a leader with a lower term.
 *
 * @import { Options, StateChange } from "../push-client.js"
 * @import { Content, Leader, Member, TabMessage, Wanted } from "./messages.js"
 */

import { earlier } from "./cursor.js";
import { Election } from "./election.js";
import { GATHER, SharedConnection } from "./shared-connection.js";

/** @type {Map<string, TabHub>} Hubs of this page by name. */
const hubs = new Map();

export class TabHub {
  /**
   * Returns the page's hub for an address without channels, and for one user. Streams with different names in `tabs`
   * do not share a hub. Returns null if the browser refuses what a hub needs.
   * @param {URL} base @param {Options} options @param {string} user
   */
  static of(base, options, user) {
    const { tabs } = options;
    const name = `sse-push:${base}|${typeof tabs === "string" ? tabs : ""}|${user}`;
    try {
      const hub = hubs.get(name) ?? new TabHub(name, base, options, user);
      hubs.set(name, hub);
      return hub;
    } catch {
      return null; // the browser refuses the BroadcastChannel, since the user has blocked cookies
    }
  }

  /** @type {Leader} */
  leader = { term: 0, open: false, channels: [], cursor: "" };
  #name;
  #base;
  #options;
  #user;
  #page = crypto.randomUUID();
  #holdsPageLock = false;
  /** @type {Set<Member>} */
  #members = new Set();
  /** @type {Map<string, Wanted>} Wanted channels by page. */
  #wanted = new Map();
  #bus;
  /** @type {Election | undefined} */
  #election;
  /** @type {SharedConnection | null} Only the leader has one. */
  #connection = null;
  #cursor = "";
  #stopped = new AbortController();

  /** @param {string} name @param {URL} base @param {Options} options @param {string} user */
  constructor(name, base, options, user) {
    this.#name = name;
    this.#base = base;
    this.#options = options;
    this.#user = user;
    this.#bus = new BroadcastChannel(name);
    this.#bus.addEventListener("message", ({ data }) => this.#onMessage(data));
    this.#holdPageLock();
  }

  /** Shares a connection from the moment on when there is more than one stream. */
  #shareWithOthers() {
    if (this.#wanted.size + this.#members.size < 3) return; // one page with one stream: both sizes are 1
    this.#election ??= new Election(this.#name, {
      onLeader: (stolen) => this.#becomeLeader(stolen),
      onFollower: () => this.#closeConnection(),
      askLeader: () => this.#send({ kind: "ask" }),
    });
  }

  /**
   * Holds a lock while the page lives. The leader waits for this lock to learn that the page has gone. The page sends
   * nothing before it holds the lock; otherwise the leader could get the lock first and think that the page has gone.
   */
  #holdPageLock() {
    const gone = new Promise((end) => this.#stopped.signal.addEventListener("abort", end));
    const held = navigator.locks.request(`${this.#name}/${this.#page}`, () => {
      if (this.#stopped.signal.aborted) return undefined;
      this.#holdsPageLock = true;
      this.#send({ kind: "hello" });
      this.#sendWanted();
      return gone;
    });
    held.catch(() => {}); // the browser refuses locks, so every page keeps its own connection
  }

  /** @param {Member} member */
  add(member) {
    this.#members.add(member);
    this.updateWanted();
    this.#shareWithOthers();
    if (this.leader.open) member.onLeader(this.leader);
  }

  /** @param {Member} member */
  remove(member) {
    this.#members.delete(member);
    this.updateWanted();
    if (!this.#members.size) this.#stop();
  }

  #stop() {
    hubs.delete(this.#name);
    this.#election?.stop();
    this.#stopped.abort();
    this.#bus.close();
  }

  // -- messages between pages

  /**
   * @param {Content} content
   * @returns {TabMessage}
   */
  #send(content) {
    const message = /** @type {TabMessage} */ ({ page: this.#page, term: this.leader.term, ...content });
    this.#bus.postMessage(message);
    return message;
  }

  /** Sends to the other pages, and handles the message in this page too, in the same order. @param {Content} content */
  #sendToAll(content) {
    this.#onMessage(this.#send(content));
  }

  /** @param {TabMessage} message */
  #onMessage(message) {
    const { kind, page, term } = message;
    if (kind === "wanted") this.#noteWanted(page, message);
    else if (kind === "hello") this.#greet();
    else if (kind === "ask") this.#answer();
    else if (kind === "leader" && term >= this.leader.term) this.#onLeader(message);
    else if (term === this.leader.term && page === this.leader.page) this.#onLeaderMessage(message);
  }

  #greet() {
    this.#sendWanted();
    if (this.#connection) this.#send({ kind: "leader", ...this.leader });
  }

  #answer() {
    if (this.#connection) this.#send({ kind: "here" });
  }

  /** @param {TabMessage & { kind: "leader" }} message */
  #onLeader({ kind: _, stolen, ...leader }) {
    this.#election?.noteLeader();
    if (leader.page !== this.#page) this.#closeConnection();
    if (stolen) this.#election?.noteSteal();
    this.leader = leader;
    if (!leader.open) return;
    this.#cursor = leader.cursor;
    for (const member of [...this.#members]) member.onLeader(leader);
  }

  /** @param {TabMessage} message */
  #onLeaderMessage(message) {
    this.#election?.noteLeader();
    const members = [...this.#members];
    if (message.kind === "event") {
      if (message.id) this.#cursor = this.leader.cursor = message.id;
      for (const member of members) member.onMessage(message);
    } else if (message.kind === "waiting") {
      for (const member of members) member.onWaiting(message.detail);
    } else if (message.kind === "refused") {
      for (const member of members) member.onRefusal(message.refusal);
    } else if (message.kind === "other user") {
      for (const member of members) member.onOtherUser();
    }
  }

  /** Collects the channels of this page's members (its streams) and sends them to all pages. */
  updateWanted() {
    const members = [...this.#members];
    const channels = new Set(members.flatMap((member) => [...member.channels]));
    const after = members.reduce((cursor, member) => earlier(cursor, member.neededAfter), "");
    this.#wanted.set(this.#page, { channels: [...channels], after });
    this.#sendWanted();
    this.#connection?.adapt();
  }

  #sendWanted() {
    const wanted = this.#wanted.get(this.#page) ?? { channels: [], after: "" };
    if (this.#holdsPageLock) this.#send({ kind: "wanted", ...wanted });
  }

  /** @param {string} page @param {Wanted} wanted */
  #noteWanted(page, { channels, after }) {
    const known = this.#wanted.has(page);
    this.#wanted.set(page, { channels, after });
    this.#shareWithOthers();
    if (!known && this.#connection) this.#forgetWhenGone(page);
    this.#connection?.adapt();
  }

  /** Waits for the lock of a page, which the browser releases in any case when the page ends. @param {string} page */
  #forgetWhenGone(page) {
    const forget = () => {
      this.#wanted.delete(page);
      this.#connection?.adapt();
    };
    navigator.locks.request(`${this.#name}/${page}`, { signal: this.#stopped.signal }, forget).catch(() => {});
  }

  // -- the leader

  /** @param {boolean} stolen */
  #becomeLeader(stolen) {
    const [first] = this.#members;
    const cursor = this.#cursor || first?.neededAfter || "";
    const term = this.leader.term + 1;
    this.leader = { page: this.#page, term, open: false, channels: [], cursor };
    this.#sendToAll({ kind: "leader", ...this.leader, stolen });
    for (const page of this.#wanted.keys()) if (page !== this.#page) this.#forgetWhenGone(page);
    this.#connect(cursor);
  }

  /** @param {string} cursor */
  #connect(cursor) {
    this.#connection = new SharedConnection(this.#base, this.#options, cursor, {
      wanted: () => new Set([...this.#wanted.values()].flatMap(({ channels }) => channels)),
      neededAfter: () => this.#neededAfter(),
      onOpen: (opening, user) => this.#onOpen(opening, user),
      onEvent: (event) => this.#sendToAll({ kind: "event", ...event }),
      onWaiting: (detail) => this.#sendToAll({ kind: "waiting", detail }),
      onClosed: (detail) => this.#onClosed(detail),
    });
  }

  /** Returns the cursor after which the tabs that do not share yet need their channels; "" if nobody waits. */
  #neededAfter() {
    let cursor = "";
    for (const { after } of this.#wanted.values()) cursor = earlier(cursor, after);
    return cursor;
  }

  /**
   * The cookies of a browser may have changed since the pages were loaded. No page gets another user's events.
   * @param {Partial<Leader>} opening @param {string | null} user
   */
  #onOpen(opening, user) {
    if ((user ?? "") === this.#user) return this.#sendToAll({ kind: "leader", ...this.leader, ...opening, open: true });
    this.#closeConnection();
    this.#sendToAll({ kind: "other user" });
  }

  /**
   * Tells all pages that the server refused the connection. If the server refused only one channel, the leader connects
   * again after a short time; by then, the members that wanted this channel have left.
   * @param {StateChange} detail
   */
  #onClosed({ status, reason, error }) {
    const details = error && "details" in error ? error.details : undefined;
    const channel = status === 403 ? /** @type {string | undefined} */ (details?.channel) : undefined;
    const cursor = this.#cursor;
    this.#closeConnection();
    this.#sendToAll({ kind: "refused", refusal: { channel, status, reason, error } });
    if (channel && this.#members.size) setTimeout(() => this.#mayConnect() && this.#connect(cursor), GATHER.join);
  }

  #mayConnect() {
    return this.leader.page === this.#page && !this.#connection && !this.#stopped.signal.aborted;
  }

  #closeConnection() {
    const connection = this.#connection;
    this.#connection = null;
    connection?.close();
  }
}
