// @ts-check
/** Explains in the console what is wrong when PushClient has thrown an exception because of a mistake in the page. */

/** Right names for names that people take over from other clients. @type {Record<string, string>} */
const ALIASES = {
  credentials: "withCredentials",
  cursor: "lastEventId",
  authorization: "token",
  auth: "token",
  retry: "minDelay",
  reconnectInterval: "minDelay",
  retries: "maxRetries",
  shared: "tabs",
};

/** At most in how many letters a wrong name may differ from the right one that the explanation suggests. */
const MAX_DIFFERENCE = 3;

/** @type {(about: unknown[]) => string} */
export function explanation([kind, subject, value, names]) {
  const name = String(subject);
  if (kind === "URL") {
    const outside = globalThis.location ? "" : " Outside of pages, the address needs its beginning too: https://…";
    const other = /^(?!https?:)[a-z][-+.\w]*:/i.test(name.trim()) ? " A stream comes over http or https." : "";
    return `new PushClient(url) needs the address of a stream, for example "/stream?channels=news". It got ${shown(subject)}.${other}${outside}`;
  }
  if (kind === "channel") {
    const [method, names] = [name === "add" ? "join" : "leave", /** @type {unknown[]} */ (value)];
    return `${method}("news") needs the names of channels. It got ${names.length ? names.map(shown).join(", ") : "none"}.`;
  }
  if (kind === "handler") return `on("${name}", handler) needs a function as its handler. It got ${shown(value)}.`;
  if (kind === "listener") {
    return `addEventListener only knows "statechange" and "error". For events from the server, call client.on("${name}", handler).`;
  }
  const known = /** @type {string[]} */ (names);
  if (known.includes(name)) return `the option "${name}" cannot be ${shown(value)}. push-client.d.ts describes each option.`;
  const similar = ALIASES[name] ?? closest(name, known);
  const advice = similar ? `Did you mean "${similar}"?` : `The options are ${known.join(", ")}.`;
  return `there is no option "${name}". ${advice}`;
}

/** @param {unknown} value */
function shown(value) {
  if (typeof value === "function") return "a function";
  if (typeof value === "string") return JSON.stringify(value);
  return typeof value === "object" && value ? `an object (${Object.prototype.toString.call(value)})` : String(value);
}

/** @param {string} name @param {string[]} known */
function closest(name, known) {
  const [best] = known
    .map((other) => ({ other, difference: difference(plain(name), plain(other)) }))
    .sort((one, two) => one.difference - two.difference);
  return best.difference <= Math.min(MAX_DIFFERENCE, name.length / 2) ? best.other : undefined;
}

const plain = (/** @type {string} */ name) => name.toLowerCase().replace(/[_-]/g, "");

/** How many letters must be added, removed or replaced to turn a name into another. @param {string} one @param {string} two */
function difference(one, two) {
  let row = Array.from({ length: two.length + 1 }, (_, n) => n);
  for (const [i, letter] of [...one].entries()) {
    const next = [i + 1];
    for (let j = 0; j < two.length; j += 1) {
      next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + (letter === two[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[two.length];
}
