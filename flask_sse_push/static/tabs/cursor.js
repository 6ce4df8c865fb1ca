// @ts-check
/** Compares cursors. Pages treat a cursor as opaque; only cursors of one shard and one epoch have an order. */

/** The cursor of a stream that begins with all kept events, until its first event. */
export const EARLIEST = "earliest";

const ONE_SHARD = /^([a-z0-9]+)-([0-9a-z]+)$/;

/** Whether a cursor can be compared with others of its epoch. @param {string} cursor */
export const comparable = (cursor) => ONE_SHARD.test(cursor);

/**
 * Whether a stream whose last event has the cursor `position` has had every event up to `cursor`. False when the two
 * cannot be compared.
 * @param {string} position @param {string} cursor
 */
export function reached(position, cursor) {
  if (position === cursor) return true;
  const [, epoch, id] = ONE_SHARD.exec(position) ?? [];
  const [, otherEpoch, otherId] = ONE_SHARD.exec(cursor) ?? [];
  if (!epoch || epoch !== otherEpoch) return false;
  // Ids are in base 36 without leading zeros: the longer id is greater; ids of the same length compare as text.
  return id.length === otherId.length ? id > otherId : id.length > otherId.length;
}

/** Returns the cursor that comes first; "" stands for no cursor. @param {string} one @param {string} other */
export const earlier = (one, other) => (!one || (other && reached(one, other)) ? other : one);
