/** What the tabs of a browser tell each other so that one connection serves them all, and the page's part in it.
 *
 * Each page tells which channels it wants. The leader's connection carries the union and names the channels of each
 * event; what it brings goes to all pages, which take what is theirs. Every page keeps the cursor, so whoever leads
 * next goes on from there. A page hears the leader's messages in their order. A new leader has a higher term, and what
 * an earlier one still says is passed over.
 */

import { Election } from "./election.js";
import { PushClient } from "../push-client.js";

/** Ms in which wishes of several pages become one change of the connection, and until lost ones are dropped. */
const GATHER = { join: 20, leave: 5000 };

/** Hubs of this page by name. */
const hubs = new Map();

export class TabHub {
  /** The page's hub for a stream's address without its channels; `tabs` may set streams apart by a name. */
  static of(url, options) {
    const { tabs } = options;
    const base = new URL(url);
    for (const name of ["channels", "last_event_id", "batch"]) base.searchParams.delete(name);
    const name = `sse-push:${base}${tabs === true ? "" : `:${tabs}`}`;
    const hub = hubs.get(name) ?? new TabHub(name, base, options);
    hubs.set(name, hub);
    return hub;
  }

  lead = { term: 0, open: false, channels: [], at: "" };
  #name;
  #base;
  #options;
  #page = crypto.randomUUID();
  #alive = false; // whether the page holds its lock
  #members = new Set();
  #wishes = new Map(); // channels by page
  #bus;
  #election;
  #client = null; // the shared connection, in the leader's page
  #position = "";
  #timers = {};
  #over = new AbortController();

  constructor(name, base, options) {
    this.#name = name;
    this.#base = base;
    this.#options = options;
    this.#bus = new BroadcastChannel(name);
    this.#bus.addEventListener("message", ({ data }) => this.#hear(data));
    // Held while the page lives: the leader waits for it to know when the page has gone. Nothing is told before it is
    // held: the leader, asking first, would take the page for gone.
    const life = new Promise((end) => this.#over.signal.addEventListener("abort", end));
    navigator.locks.request(`${name}/${this.#page}`, () => {
      if (this.#over.signal.aborted) return undefined;
      this.#alive = true;
      this.#tell({ kind: "hello" });
      this.#tellWish();
      return life;
    });
    this.#election = new Election(name, {
      lead: (taken) => this.#takeOver(taken),
      stepDown: () => this.#stepDown(),
      ask: () => this.#tell({ kind: "ask" }),
    });
  }

  add(member) {
    this.#members.add(member);
    this.wish();
    if (this.lead.open) member.place(this.lead);
  }

  remove(member) {
    this.#members.delete(member);
    this.wish();
    if (!this.#members.size) this.#stop();
  }

  #stop() {
    hubs.delete(this.#name);
    this.#election.stop();
    this.#over.abort();
    this.#bus.close();
  }

  /** Waits for one of so many places that all pages have together; it is free again when `signal` is aborted. */
  async stepAside(places, signal) {
    for (let n = 0; n < places; n += 1) if (await this.#occupy(n, { ifAvailable: true }, signal)) return;
    await this.#occupy(Math.floor(places * Math.random()), { signal }, signal);
  }

  #occupy(place, options, signal) {
    return new Promise((answer) => {
      const hold = (lock) => {
        answer(lock !== null);
        return lock && !signal.aborted && new Promise((end) => signal.addEventListener("abort", end));
      };
      navigator.locks.request(`${this.#name}/alone/${place}`, options, hold).catch(() => answer(false));
    });
  }

  // -- between pages

  #tell(message) {
    this.#bus.postMessage({ page: this.#page, term: this.lead.term, ...message });
  }

  #hear(message) {
    const { kind, page } = message;
    if (kind === "wish") this.#note(page, message.channels);
    else if (kind === "hello") this.#greet();
    else if (kind === "ask") this.#client && this.#tell({ kind: "here" });
    else if (kind === "lead" && message.term >= this.lead.term) this.#follow(message);
    else if (message.term === this.lead.term && page === this.lead.page) this.#obey(message);
  }

  #greet() {
    this.#tellWish();
    if (this.#client) this.#tell({ kind: "lead", ...this.lead });
  }

  #follow(lead) {
    this.#election?.heard();
    if (lead.page !== this.#page) this.#stepDown();
    if (lead.taken) this.#election?.taken();
    this.lead = { ...lead, taken: false };
    if (!lead.open) return;
    this.#position = lead.at;
    for (const member of [...this.#members]) member.place(lead);
  }

  #obey(message) {
    this.#election?.heard();
    const { kind } = message;
    if (kind === "event") {
      if (message.id) this.#position = this.lead.at = message.id;
      for (const member of [...this.#members]) member.hear(message);
    } else if (kind === "waiting") {
      for (const member of [...this.#members]) member.wait(message.detail);
    } else if (kind === "refused") {
      for (const member of [...this.#members]) member.refuse(message.told);
    }
  }

  /** Tells all pages what this one listens to. */
  wish() {
    const channels = [...new Set([...this.#members].flatMap((member) => [...member.channels]))];
    this.#wishes.set(this.#page, channels);
    this.#tellWish();
    this.#adapt();
  }

  #tellWish() {
    if (this.#alive) this.#tell({ kind: "wish", channels: this.#wishes.get(this.#page) ?? [] });
  }

  #note(page, channels) {
    const known = this.#wishes.has(page);
    this.#wishes.set(page, channels);
    if (!known && this.#client) this.#outlive(page);
    this.#adapt();
  }

  /** Forgets a page when it has gone, however it went. */
  #outlive(page) {
    const forget = () => {
      this.#wishes.delete(page);
      this.#adapt();
    };
    navigator.locks.request(`${this.#name}/${page}`, { signal: this.#over.signal }, forget).catch(() => {});
  }

  // -- the leader

  #union() {
    return new Set([...this.#wishes.values()].flat());
  }

  #takeOver(taken) {
    const [first] = this.#members;
    const asked = this.#position || first?.last || "";
    const { term } = this.lead;
    this.lead = { page: this.#page, term: term + 1, open: false, channels: [], at: asked };
    this.#say({ kind: "lead", ...this.lead, taken });
    for (const page of this.#wishes.keys()) if (page !== this.#page) this.#outlive(page);
    this.#connect(asked);
  }

  #connect(lastEventId) {
    const url = new URL(this.#base);
    url.searchParams.set("tagged", "1");
    const channels = [...this.#union()];
    const own = { tabs: false, batch: 0, transport: "fetch", channels, lastEventId, page: false, remember: false };
    const client = (this.#client = new PushClient(url, { ...this.#options, ...own }));
    let asked = lastEventId;
    client.on("*", (message) => {
      if (this.#client !== client) return;
      const { type, data, lastEventId: id, channels } = message;
      if (type === "sse.open") {
        const { connection, heartbeat, resumed } = data;
        const at = asked || id;
        this.#lead({ open: true, channels: client.channels, at, connection, heartbeat, resumed });
      } else if (type !== "sse.close") {
        asked = id || asked;
        this.#say({ kind: "event", type, text: JSON.stringify(data), id, channels });
      }
      asked ||= id;
    });
    client.addEventListener("statechange", ({ detail }) => {
      if (this.#client !== client) return;
      if (detail.state === "waiting") this.#say({ kind: "waiting", detail });
      if (detail.state === "closed") this.#refused(detail);
    });
  }

  #lead(news) {
    this.lead = { ...this.lead, ...news };
    this.#say({ kind: "lead", ...this.lead });
  }

  /** To the other pages, and to this one in the same order. */
  #say(message) {
    const full = { page: this.#page, term: this.lead.term, ...message };
    this.#bus.postMessage(full);
    this.#hear(full);
  }

  #refused({ status, reason, error }) {
    const channel = status === 403 ? error?.details?.channel : undefined;
    const position = this.#position;
    this.#client = null;
    this.#say({ kind: "refused", told: { channel, status, reason, error } });
    if (channel && this.#members.size) setTimeout(() => this.#leads() && this.#connect(position), GATHER.join);
  }

  #leads() {
    return this.lead.page === this.#page && !this.#client && !this.#over.signal.aborted;
  }

  #stepDown() {
    clearTimeout(this.#timers.join);
    clearTimeout(this.#timers.leave);
    this.#timers = {}; // a page that leads again makes new ones
    const client = this.#client;
    this.#client = null;
    client?.close();
  }

  /** Makes the connection carry what the pages want. */
  #adapt() {
    const client = this.#client;
    if (!client) return;
    const wanted = this.#union();
    const change = (when, names, how) => {
      if (names.length) this.#timers[when] ??= setTimeout(() => ((this.#timers[when] = undefined), how()), GATHER[when]);
    };
    const missing = () => [...this.#union()].filter((name) => !client.channels.includes(name));
    const spare = () => client.channels.filter((name) => !this.#union().has(name));
    change("join", missing(), () => client.join(...missing()));
    change("leave", wanted.size ? spare() : [], () => client.leave(...spare()));
  }
}
