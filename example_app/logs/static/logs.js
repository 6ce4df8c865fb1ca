// @ts-check
/** The page "Logs": shows the lines that match the level and the search, the newest at the bottom. */

/** @typedef {{ at?: string, level: string, source: string, text: string }} Line */

import { byId, openStream, piece, send } from "../../static/page.js";

const [lines, level, search, pause] = ["lines", "level", "search", "pause"].map(byId);

const MOST = 1000;
const levels = lines.dataset.levels.split(",");

/** @type {Line[] | null} Lines that arrived during a pause, up to MOST; null without a pause. */
let held = null;

await openStream({
  line: ({ data }) => {
    if (held) {
      held.push(data);
      if (held.length > MOST) held.shift();
      pause.textContent = `Go on (${held.length})`;
    } else add([data]);
  },
});

/** Adds lines. Scrolls to the last one, unless the user has scrolled away from it. @param {Line[]} added */
function add(added) {
  const atEnd = lines.scrollHeight - lines.clientHeight - lines.scrollTop < 40;
  for (const line of added) lines.append(row(line));
  while (lines.children.length > MOST) lines.firstElementChild.remove();
  if (atEnd) lines.scrollTop = lines.scrollHeight;
  count();
}

/** @param {Line} line */
function row({ at, level, source, text }) {
  const element = piece("li", "");
  element.dataset.level = level;
  if (at) {
    const time = piece("time", "", at.slice(11).replace(",", "."));
    time.title = at;
    element.append(time, piece("span", "level", level), piece("span", "source", source));
  }
  element.append(piece("span", "text", text));
  element.hidden = !fits(element);
  return element;
}

/** @param {HTMLElement} element */
function fits(element) {
  const known = levels.indexOf(element.dataset.level);
  const wanted = search.value.trim().toLowerCase();
  return (known < 0 || known >= Number(level.value)) && (element.textContent ?? "").toLowerCase().includes(wanted);
}

function filter() {
  for (const element of lines.children) element.hidden = !fits(element);
  lines.scrollTop = lines.scrollHeight;
  count();
}

function count() {
  byId("kept").textContent = lines.children.length;
  byId("shown").textContent = lines.querySelectorAll("li:not([hidden])").length;
}

// -- what the user does -------------------------------------------------------------------------------

level.addEventListener("change", filter);
search.addEventListener("input", filter);

pause.addEventListener("click", () => {
  const missed = held;
  held = missed ? null : [];
  pause.setAttribute("aria-pressed", held !== null);
  pause.textContent = held ? "Go on" : "Pause";
  if (missed) add(missed);
});

byId("clear").addEventListener("click", () => {
  lines.replaceChildren();
  count();
});

byId("write").addEventListener("submit", (/** @type {any} */ submit) => {
  submit.preventDefault();
  const form = submit.target;
  void send(form.action, Object.fromEntries(new FormData(form)), () => (form.elements.text.value = ""));
});
