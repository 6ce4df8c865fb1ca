// @ts-check
/** Permits that all tabs of a site share. A permit is a Web Lock, so it is free again when its tab is gone. */

/**
 * Waits for one of `count` permits. The permit is free again when `signal` is aborted.
 * @param {string} name @param {number} count @param {AbortSignal} signal
 */
export async function acquirePermit(name, count, signal) {
  for (let n = 0; n < count; n += 1) if (await lock(`${name}/${n}`, { ifAvailable: true }, signal)) return;
  await lock(`${name}/${Math.floor(count * Math.random())}`, { signal }, signal);
}

/**
 * @param {string} name @param {LockOptions} options @param {AbortSignal} signal
 * @returns {Promise<boolean>} Whether this tab holds the lock.
 */
function lock(name, options, signal) {
  return new Promise((resolve) => {
    const hold = (/** @type {Lock | null} */ lock) => {
      resolve(lock !== null);
      if (!lock || signal.aborted) return undefined;
      return new Promise((end) => signal.addEventListener("abort", end));
    };
    navigator.locks.request(name, options, hold).catch(() => resolve(false));
  });
}
