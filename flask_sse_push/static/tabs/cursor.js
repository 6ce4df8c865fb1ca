/** Cursors are opaque to pages; only what lies in one order can be compared, and only that is. */

const ONE_SHARD = /^([a-z0-9]+)-([0-9a-z]+)$/;

/** Whether a stream at `position` has had everything up to `cursor`; false when that cannot be told. */
export function reached(position, cursor) {
  if (position === cursor) return true;
  const [, epoch, id] = ONE_SHARD.exec(position) ?? [];
  const [, other, wanted] = ONE_SHARD.exec(cursor) ?? [];
  if (!epoch || epoch !== other) return false;
  // Both in base 36 without leading zeros: the longer one is greater, else the alphabet decides.
  return id.length === wanted.length ? id > wanted : id.length > wanted.length;
}
