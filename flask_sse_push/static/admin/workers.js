// @ts-check
/** The workers as they report on the page's stream. */

/** @typedef {{ worker: string, pid: number, host: string, streams: number, behind: number, channels: number,
 *   buffered: number, connected: boolean, heard_ago: number | null, probed_ago: number | null, probe: number | null,
 *   reconnects: number, recheck_lag: number, memory: number | null, max_streams: number, runs: number,
 *   stopping: boolean, at?: number, every?: number }} Worker */

/** A worker that was silent for this many of its intervals is gone. */
const MISSED = 3;

/** At most how many workers the page remembers. */
const MOST = 1000;

/** The newest report of each worker. */
export class Workers {
  /** @type {Map<string, { worker: Worker, until: number }>} */ #reports = new Map();

  /** Notes a report that has just come. @param {Worker} worker */
  note(worker) {
    const until = performance.now() + MISSED * 1000 * (worker.every ?? 2);
    if (this.#reports.size < MOST || this.#reports.has(worker.worker)) this.#reports.set(worker.worker, { worker, until });
  }

  /** Returns a worker's newest report, if the worker has reported lately. @param {string} name */
  report(name) {
    const found = this.#reports.get(name);
    return found && found.until > performance.now() ? found.worker : undefined;
  }

  /** Whether a worker has reported before, and does not report any more. @param {string} name */
  isGone(name) {
    return this.#reports.has(name) && !this.report(name);
  }

  /**
   * Returns workers with their newest reports, sorted by name, and workers that have reported since.
   * @param {Worker[]} known
   */
  merged(known) {
    const all = new Map(known.map((worker) => [worker.worker, worker]));
    for (const [name, { worker }] of this.#reports) all.set(name, worker);
    return [...all.values()].sort((one, two) => one.worker.localeCompare(two.worker));
  }
}
