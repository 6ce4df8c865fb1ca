/** On a phone the pages' names are a strip to scroll: the current one comes into sight. */

const strip = document.querySelector(".bar nav");
const current = strip.querySelector("[aria-current]");
if (current) strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.clientWidth) / 2;
