// @ts-check
/**
 * The address of a view, such as `#/streams?user=7`. It stands in the fragment of the page's address, so a view can be
 * bookmarked, and the browser's back button leads to the view before.
 */

/** @typedef {{ name: string, query: URLSearchParams }} Address */

/**
 * Returns the fragment of a view's address. Parameters that are empty are left out.
 * @param {string} name @param {Record<string, string | number | null | undefined>} [query]
 */
export function fragment(name, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  const text = new URLSearchParams(given.map(([key, value]) => [key, String(value)])).toString();
  return `#/${name}${text && "?"}${text}`;
}

/** Returns the view that a fragment names; the start view has the name "". @param {string} hash @returns {Address} */
export function parse(hash) {
  const [, name = "", query = ""] = /^#\/?([^?]*)\??(.*)$/.exec(hash) ?? [];
  return { name, query: new URLSearchParams(query) };
}
