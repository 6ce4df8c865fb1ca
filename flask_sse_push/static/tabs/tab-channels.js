// @ts-check
/** The channels of a tab that may share a connection. */

/** The channel of a stream that asks for none. */
const DEFAULT = "sse";

export class TabChannels {
  /** @type {Set<string>} The channels of the tab's connection, also those that the app joined. */ joined;
  /** @type {Set<string>} The channels that new connections ask for. */ asked;
  /** @type {Set<string>} Channels that the tab left before the shared connection said that it had joined them. */
  #leftEarly = new Set();

  /** @param {string[]} names */
  constructor(names) {
    this.joined = new Set(names.length ? names : [DEFAULT]);
    this.asked = new Set(this.joined);
  }

  /** Whether the server still has to join channels. */
  get isJoining() {
    return [...this.asked].some((name) => !this.joined.has(name));
  }

  /** Whether the server still has to change the channels. */
  get isChanging() {
    return this.asked.size !== this.joined.size || this.isJoining;
  }

  /** Notes channels that the server lets the tab join. It confirms them with `sse.channels`. @param {string[]} names */
  grant(names) {
    for (const name of names) {
      this.asked.add(name);
      this.#leftEarly.delete(name);
    }
  }

  /** Notes that the tab wants channels no more. Returns those that its connection has. @param {string[]} names */
  drop(names) {
    for (const name of names) if (this.asked.delete(name) && !this.joined.has(name)) this.#leftEarly.add(name);
    return names.filter((name) => this.joined.has(name));
  }

  /** Notes that the server has changed the connection. @param {{ joined?: string[], left?: string[] }} change */
  apply({ joined = [], left = [] }) {
    const wanted = joined.filter((name) => !this.#leftEarly.delete(name));
    this.joined = new Set([...this.joined, ...wanted].filter((name) => !left.includes(name)));
  }

  /** Notes that a new connection has begun. @param {Iterable<string>} [names] Its channels. */
  begin(names = this.joined) {
    this.joined = new Set(names);
    this.#leftEarly.clear();
  }
}
