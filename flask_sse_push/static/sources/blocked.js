// @ts-check
/** Remembers that the network holds streams back. So the next pages of this tab soon use short streams. */

const KEY = "sse-push:blocked";

/** How long the tab remembers this, in milliseconds. */
const REMEMBERED = 3_600_000;

/** Whether the network held streams back a short time ago. */
export function isBlocked() {
  try {
    const at = Number(sessionStorage.getItem(KEY));
    return at > 0 && Math.abs(Date.now() - at) < REMEMBERED;
  } catch {
    return false; // workers and Node have no storage, and some users forbid it
  }
}

export function noteBlocked() {
  try {
    sessionStorage.setItem(KEY, `${Date.now()}`);
  } catch {} // then the next page finds out again
}

export function forgetBlocked() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {} // nothing was remembered
}
