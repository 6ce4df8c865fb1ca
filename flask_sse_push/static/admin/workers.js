// @ts-check
/** The workers as they report on the page's stream. */

/** @typedef {{ worker: string, pid: number, host: string, streams: number, behind: number, channels: number,
 *   buffered: number, connected: boolean, heard_ago: number | null, probed_ago: number | null, probe: number | null,
 *   reconnects: number, recheck_lag: number, memory: number | null, max_streams: number, runs: number,
 *   stopping: boolean, at?: number, every?: number }} Worker
 * @typedef {{ workers: Worker[], missing: string[], idle: number }} Answer What the server says about all workers:
 *   those that answered, the names of those that did not answer, and how many others are idle.
 */

/** A worker that was silent for this many of its intervals is gone. */
const MISSED = 3;

/** Within how many seconds a worker that the server's answer names must report. */
const PATIENCE = 15;

/** For so many milliseconds, a page that was just opened waits for workers that have yet to report. */
const COUNTING = 10_000;

/** At most how many workers the page remembers. */
const MOST = 1000;

/** The newest state of each worker, as far as the page knows it. */
export class Workers {
  /** @type {Map<string, { worker: Worker, until: number }>} */ #known = new Map();
  #countedAt = performance.now() + COUNTING;
  #heardUntil = 0;

  /** How many workers have no streams and no runs: they answer nothing. */
  idle = 0;

  /** Notes what a worker has just reported, or what the server has answered about it. @param {Worker} worker */
  note(worker) {
    const { worker: name, every } = worker;
    const until = performance.now() + 1000 * (every ? MISSED * every : PATIENCE);
    if (every) this.#heardUntil = until;
    if (this.#known.size < MOST || this.#known.has(name)) this.#known.set(name, { worker, until });
  }

  /** Notes the server's answer about all workers, and forgets all others. @param {Answer} answer */
  take({ workers, missing, idle }) {
    this.idle = idle;
    const names = new Set([...missing, ...workers.map(({ worker }) => worker)]);
    for (const name of this.#known.keys()) if (!names.has(name)) this.#known.delete(name);
    workers.forEach((worker) => this.note(worker));
  }

  /** Returns all workers, sorted by name. */
  all() {
    return [...this.#known.values()].map(({ worker }) => worker).sort((one, two) => one.worker.localeCompare(two.worker));
  }

  /** Whether workers that the page does not know may still report, because it was just opened. */
  get isCounting() {
    return performance.now() < this.#countedAt;
  }

  /** Whether reports come, on a stream of this page's own. */
  get isHeard() {
    return performance.now() < this.#heardUntil;
  }

  /** Whether a worker reports nothing any more. @param {string} name */
  isGone(name) {
    return (this.#known.get(name)?.until ?? 0) < performance.now();
  }
}
