// @ts-check
/**
 * The channel changes that the page asks for, in a tab that may share a connection. Such a tab often changes its
 * connection, and each answer of the server is about one connection. So each change is repeated until the tab's current
 * connection has an answer. The changes of a client wait for each other.
 * @import { Options } from "../push-client.js"
 * @import { Opening, Trouble } from "../sources/source.js"
 * @import { Carrier } from "./messages.js"
 */

import { changeChannels, isClosed } from "../channels.js";

export class ChannelChanges {
  #base;
  #options;
  /** @type {Carrier | undefined} */ #source;
  /** @type {Partial<Opening> | null} The data of the connection's `sse.open`; null while there is none. */
  #opening = null;
  /** @type {AbortSignal | undefined} Aborted when the client is closed. */ #closed;
  /** @type {Promise<unknown>} Settles when all changes have been answered. */ #last = Promise.resolve();
  #wake = () => {};
  /** @type {Set<string>} The channels to join about which the server has not decided. */
  #undecided = new Set();

  /**
   * Returns the changes of a client, which stay when the client connects again.
   * @param {Trouble} trouble @param {URL} base The stream's address without channels. @param {Options} options
   */
  static of(trouble, base, options) {
    const changes = (trouble.changes ??= new ChannelChanges(base, options));
    trouble.change = (...change) => changes.change(...change);
    return changes;
  }

  /** @param {URL} base @param {Options} options */
  constructor(base, options) {
    this.#base = base;
    this.#options = options;
  }

  /**
   * Must be called when a connection carries the tab, and with null when the tab has lost its connection.
   * @param {Carrier | undefined} source Undefined when the client has closed its source.
   * @param {Partial<Opening> | null} opening
   */
  onConnection(source, opening) {
    this.#source = source;
    this.#opening = opening;
    this.#wake();
  }

  /** Whether the server has not decided yet whether the tab may join a channel. @param {string} name */
  isUndecided(name) {
    return this.#undecided.has(name);
  }

  /**
   * Returns the channels that a stream may ask for at once. Without any, the parameter must be gone: the server would take
   * it for a channel without a name.
   * @param {URLSearchParams} query Its channels that are undecided are taken away.
   */
  decided(query) {
    const asked = (query.get("channels") ?? "").split(",");
    const names = asked.filter((name) => name && !this.isUndecided(name));
    if (names.length) query.set("channels", names.join());
    else query.delete("channels");
    return names;
  }

  /**
   * Joins or leaves channels, after the changes before.
   * @param {string[]} names @param {Set<string>} channels The client's channels: those of `names` that it has are
   *   joined, the others are left. If the server refuses, it loses the channels that were joined.
   * @param {AbortSignal} closed Aborted when the client is closed.
   * @returns {Promise<void>} Settles when the server has decided, or the page has closed the client.
   * @throws {Error} If the server refuses, or closes the client. `status` and `error` are the server's.
   */
  async change(names, channels, closed) {
    if (closed.aborted) return;
    if (!this.#closed) closed.addEventListener("abort", () => this.#wake());
    this.#closed = closed;
    const isJoin = channels.has(names[0]);
    if (isJoin) for (const name of names) this.#undecided.add(name);
    const change = this.#last.then(() => (isJoin ? this.#join(names, channels) : this.#leave(names, channels)));
    this.#last = change.catch(() => {}); // a refused change does not stop the next
    return change;
  }

  /** @param {string[]} names @param {Set<string>} channels */
  async #join(names, channels) {
    const missing = names.filter((name) => !this.#source?.has(name));
    for (const name of missing) {
      this.#undecided.add(name); // an earlier join may have been refused
      channels.add(name);
    }
    try {
      await this.#ask(missing, []);
      this.#source?.grant(missing);
    } catch (error) {
      for (const name of missing) channels.delete(name);
      throw error;
    } finally {
      for (const name of names) this.#undecided.delete(name);
    }
  }

  /** @param {string[]} names @param {Set<string>} channels */
  async #leave(names, channels) {
    for (const name of names) channels.delete(name);
    await this.#ask([], names);
  }

  /** Asks until the connection has answered that carries the tab. @param {string[]} join @param {string[]} leave */
  async #ask(join, leave) {
    for (;;) {
      const carried = await this.#connected();
      if (!carried || (leave.length && carried.source.drop(leave))) return;
      const { opening } = carried;
      const changed = await this.#post(opening, join, leave).catch((error) => error);
      const isCurrent = opening === this.#opening; // otherwise, the answer is about a connection that is gone
      if (isCurrent && changed instanceof Error) throw changed;
      if (isCurrent && changed === true) return;
      if (isCurrent || (join.length && changed === true)) return this.#reopen(join);
    }
  }

  /** @param {Partial<Opening>} opening @param {string[]} join @param {string[]} leave */
  #post(opening, join, leave) {
    const closed = /** @type {AbortSignal} */ (this.#closed);
    return changeChannels(this.#base, this.#options, opening, leave, join, new Set(), closed);
  }

  /**
   * Joins channels by a new connection: the server has allowed the join, but the connection is gone, or the server cannot
   * change an open stream.
   * @param {string[]} join
   */
  async #reopen(join) {
    for (const name of join) this.#undecided.delete(name);
    this.#source?.grant(join);
    this.#source?.reopen();
    await this.#connected();
  }

  /**
   * Waits until a connection carries the tab. Returns null if the page closes the client.
   * @throws {Error} If the client closes for another reason.
   */
  async #connected() {
    for (;;) {
      if (isClosed(/** @type {AbortSignal} */ (this.#closed))) return null;
      if (this.#source && this.#opening) return { source: this.#source, opening: this.#opening };
      await new Promise((wake) => (this.#wake = () => wake(0)));
    }
  }
}
