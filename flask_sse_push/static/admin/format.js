// @ts-check
/** Writes numbers as an operator reads them: ages, durations, sizes. Each returns "–" for a value that is not known. */

/** @typedef {number | null | undefined} Known */

const UNKNOWN = "–";

/** @type {[number, string][]} Seconds in a unit. */
const UNITS = [[86_400, "d"], [3600, "h"], [60, "min"]];

/** Writes a number of seconds with one or two units, such as "4 ms", "12 s", "3 min 5 s". @param {Known} value */
export function duration(value) {
  if (value == null) return UNKNOWN;
  if (value < 1) return `${Math.max(0, Math.round(value * 1000))} ms`;
  const seconds = Math.floor(value);
  const unit = UNITS.findIndex(([size]) => seconds >= size);
  if (unit < 0) return `${seconds} s`;
  const [size, name] = UNITS[unit];
  const [smaller, smallName] = UNITS[unit + 1] ?? [1, "s"];
  const rest = Math.floor((seconds % size) / smaller);
  return `${Math.floor(seconds / size)} ${name}${rest ? ` ${rest} ${smallName}` : ""}`;
}

/** Writes how long ago something was, such as "12 s ago". @param {Known} seconds */
export const ago = (seconds) => (seconds == null ? UNKNOWN : seconds < 1 ? "just now" : `${duration(seconds)} ago`);

/** Writes a whole number with its digits in groups, such as "18,211". @param {Known} value */
export const count = (value) => (value == null ? UNKNOWN : value.toLocaleString("en"));

/** Writes a number of bytes, such as "1.5 kB". @param {Known} value */
export function size(value) {
  if (value == null) return UNKNOWN;
  if (value < 1000) return `${value} B`;
  const power = Math.min(3, Math.floor(Math.log10(value) / 3));
  const shown = value / 1000 ** power;
  return `${shown < 10 ? shown.toFixed(1) : Math.round(shown)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** Writes a number with its noun, such as "1 stream" or "2 streams". @param {number} value @param {string} noun */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
