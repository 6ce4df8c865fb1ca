// @ts-check
/**
 * Elects one tab as the leader: the tab that has a Web Lock. When the leader is closed, the browser gives the lock to
 * the next tab that waits. When the leader does not answer, another tab takes the lock away from it (steals it).
 */

/** Milliseconds between two checks of the leader. A follower asks a leader that was silent for this long to answer. */
const CHECK_INTERVAL = 200;

/** Milliseconds in which a leader must answer. Each recent steal doubles this time, since a busy machine is slow. */
const ANSWER_TIME = 400;

/** First: for how many milliseconds a steal is recent. Second: how many recent steals are counted at most. */
const RECENT = 30_000;
const MAX_STEALS = 5;

/** If more milliseconds than this passed between two checks, this tab was asleep: the leader may well have answered. */
const ASLEEP = { visible: 3 * CHECK_INTERVAL, hidden: 5000 };

/**
 * @typedef {object} ElectionHandlers
 * @property {(stolen: boolean) => void} onLeader This tab is the leader now. `stolen`: whether it stole the lock.
 * @property {() => void} onFollower This tab is no longer the leader.
 * @property {() => void} askLeader Asks the leader to answer.
 */

export class Election {
  #name;
  #handlers;
  /** @type {(() => void) | null} Releases the lock; null while this tab is a follower. */
  #release = null;
  #stopped = new AbortController();
  #leaderHeard = performance.now();
  #leaderAsked = 0;
  #lastCheck = performance.now();
  /** @type {number[]} Times of recent steals. */
  #steals = [];
  #timer;
  #queued = new AbortController(); // takes this tab out of the line for the lock

  /**
   * @param {string} name The name of the lock.
   * @param {ElectionHandlers} handlers
   */
  constructor(name, handlers) {
    this.#name = name;
    this.#handlers = handlers;
    this.#queueForLock();
    this.#timer = setInterval(() => this.#check(), CHECK_INTERVAL);
  }

  /** Must be called when a new leader reports that it stole the lock. */
  noteSteal() {
    this.#steals = [...this.#steals, performance.now()].slice(-MAX_STEALS);
  }

  /** Must be called for each message of the leader. */
  noteLeader() {
    this.#leaderHeard = performance.now();
    this.#leaderAsked = 0;
  }

  stop() {
    clearInterval(this.#timer);
    this.#stopped.abort();
    this.#becomeFollower();
  }

  async #queueForLock() {
    const queued = (this.#queued = new AbortController());
    this.#stopped.signal.addEventListener("abort", () => queued.abort());
    await this.#requestLock({ signal: queued.signal });
  }

  /** @param {LockOptions} options */
  async #requestLock(options) {
    try {
      await navigator.locks.request(this.#name, options, () => this.#becomeLeader(options.steal === true));
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "AbortError") return; // the browser refuses locks, so nobody leads
      if (options.signal?.aborted) return; // this tab left the line
      this.#becomeFollower(); // another tab stole the lock, so this tab must have been asleep
      if (!this.#stopped.signal.aborted) this.#queueForLock();
    }
  }

  /**
   * Holds the lock until the promise resolves.
   * @param {boolean} stolen
   * @returns {Promise<void> | undefined}
   */
  #becomeLeader(stolen) {
    if (this.#stopped.signal.aborted) return undefined;
    return new Promise((release) => {
      this.#release = release;
      this.#handlers.onLeader(stolen);
    });
  }

  #becomeFollower() {
    const release = this.#release;
    if (!release) return;
    this.#release = null;
    this.noteLeader();
    this.#handlers.onFollower();
    release();
  }

  #check() {
    const now = performance.now();
    this.#steals = this.#steals.filter((then) => now - then < RECENT);
    const slept = now - this.#lastCheck > ASLEEP[globalThis.document?.visibilityState ?? "visible"];
    this.#lastCheck = now;
    if (this.#release) return;
    if (slept) return this.noteLeader();
    if (!this.#leaderAsked && now - this.#leaderHeard >= CHECK_INTERVAL) {
      this.#leaderAsked = now;
      this.#handlers.askLeader();
    } else if (this.#leaderAsked && now - this.#leaderAsked >= ANSWER_TIME * 2 ** this.#steals.length) {
      this.noteLeader();
      this.#queued.abort();
      this.#requestLock({ steal: true });
    }
  }
}
