// @ts-check
/** On a phone, the navigation is a strip that scrolls. This script scrolls it to the current page. */

const strip = /** @type {HTMLElement} */ (document.querySelector(".bar nav"));
const current = /** @type {HTMLElement | null} */ (strip.querySelector("[aria-current]"));
if (current) strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.clientWidth) / 2;
