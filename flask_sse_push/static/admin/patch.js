// @ts-check
/**
 * Changes what an element contains, and keeps the elements that stay. So the user keeps the focus, the place in a
 * table and the text that they are typing while new data arrives.
 */

/**
 * Makes the children of `parent` equal to `wanted`.
 *
 * An old element stays in place of a new one that has the same tag and the same `data-key`. An element with `data-own`
 * is never changed: it shows the answer to the user's last action.
 * @param {Element} parent @param {Node[]} wanted
 */
export function patch(parent, wanted) {
  const keys = new Set(wanted.map(keyOf).filter(Boolean));
  let place = parent.firstChild;
  for (const fresh of wanted) {
    place = withoutGone(place, keys);
    const kept = isSame(place, fresh) ? place : named(parent, fresh);
    if (!kept) parent.insertBefore(fresh, place);
    else if (kept === place) place = kept.nextSibling;
    else parent.insertBefore(kept, place);
    if (kept) update(kept, fresh);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

/**
 * Removes the elements from `place` on, up to the first one that has no key or a key in `keys`. Returns that one.
 * @param {ChildNode | null} place @param {Set<string | undefined>} keys
 */
function withoutGone(place, keys) {
  while (place && keyOf(place) && !keys.has(keyOf(place))) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
  return place;
}

/** @param {Node | null} node */
const keyOf = (node) => (node instanceof HTMLElement ? node.dataset.key : undefined);

/** @param {Node | null} old @param {Node} fresh */
const isSame = (old, fresh) => old?.nodeName === fresh.nodeName && keyOf(old) === keyOf(fresh);

/** Returns the child with the key of a new element. @param {Element} parent @param {Node} fresh */
function named(parent, fresh) {
  const key = keyOf(fresh);
  return key ? [...parent.children].find((child) => isSame(child, fresh)) : undefined;
}

/** Gives a kept node the attributes, the text and the children of a new one. @param {Node} kept @param {Node} fresh */
function update(kept, fresh) {
  if (!(kept instanceof Element) || !(fresh instanceof Element)) {
    if (kept.nodeValue !== fresh.nodeValue) kept.nodeValue = fresh.nodeValue;
    return;
  }
  if (kept.hasAttribute("data-own")) return;
  for (const { name } of [...kept.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") kept.removeAttribute(name); // the user opens <details>
  }
  for (const { name, value } of fresh.attributes) {
    if (kept.getAttribute(name) !== value) kept.setAttribute(name, value);
  }
  patch(kept, [...fresh.childNodes]);
}
