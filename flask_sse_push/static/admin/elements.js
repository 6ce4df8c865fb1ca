// @ts-check
/** Makes the elements of the page. Text becomes text nodes, so the browser never reads it as markup. */

/** @typedef {Node | string | number | null | undefined | false} Child Nothing is shown for false, null, undefined. */

/** @typedef {string | number | boolean | null | undefined} Value Of an attribute; none for false, null, undefined. */

/**
 * Makes an element with attributes and children.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, Value>} [attributes] @param {Child[]} children
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== false && child != null).map(asNode));
  return element;
}

/** @param {Child} child @returns {Node | string} */
const asNode = (child) => (child instanceof Node ? child : String(child));

/**
 * Makes a part of a view with a heading.
 * @param {string} id The id of the heading, from which the part gets its name. @param {string} title @param {Child[]} children
 */
export function section(id, title, ...children) {
  return make("section", { class: "card", "aria-labelledby": id }, make("h2", { id }, title), ...children);
}

/**
 * Makes a list of facts: each has a term and what is said about it.
 * @param {[string, Child][]} facts
 */
export function factList(...facts) {
  return make(
    "dl",
    { class: "facts" },
    ...facts.map(([term, about]) => make("div", {}, make("dt", {}, term), make("dd", {}, about ?? "–"))),
  );
}

/** Makes a short word on a tinted ground. @param {string} text @param {"good" | "busy" | "bad" | ""} [level] */
export const badge = (text, level = "") => make("span", { class: "badge", "data-level": level || null }, text);
