// @ts-check
/**
 * The page "Activity": shows the newest events on top, and older ones on request. It does not move the list while the
 * user reads further down.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, clock, openStream, piece, send } from "../../static/page.js";

const MOST = 300;
/** Milliseconds within which older events must arrive. */
const PATIENCE = 5000;

const main = byId("main");
const [list, fresh, older, end] = ["events", "fresh", "older", "end"].map(byId);
const few = Number(list.dataset.few);

/** @type {Message[]} */
let held = []; // events that arrived while the top of the list was out of sight
let atTop = true;
let isAll = false; // whether the list contains all events that the broker keeps
const hidden = new Set(); // kinds that the user does not want to see

// -- the list -----------------------------------------------------------------------------------------

/** @param {Message} message */
function itemOf({ data: { kind, by, text, at }, lastEventId }) {
  const item = piece("li");
  item.dataset.kind = kind;
  item.dataset.cursor = lastEventId;
  item.hidden = hidden.has(kind);
  item.append(piece("span", "badge", kind), piece("span", "by", by), clock(new Date(at)), piece("p", "text", text));
  return item;
}

/** @param {Message[]} events */
function show(events) {
  list.prepend(...events.map(itemOf).reverse());
  while (list.children.length > MOST) list.lastElementChild.remove();
  tidy();
}

function tidy() {
  byId("nothing").hidden = list.querySelector("li:not([hidden])") !== null;
  older.hidden = isAll || list.children.length < few || list.children.length >= MOST;
  const count = held.filter(({ data }) => !hidden.has(data.kind)).length;
  fresh.hidden = count === 0;
  fresh.textContent = `${count} new`;
  byId("announcement").textContent = count ? `${count} new above` : "";
}

for (const button of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".filters button"))) {
  button.addEventListener("click", () => {
    const { kind } = button.dataset;
    const shown = hidden.delete(kind) || !hidden.add(kind);
    button.setAttribute("aria-pressed", String(shown));
    for (const item of list.children) if (item.dataset.kind === kind) item.hidden = !shown;
    tidy();
  });
}

// -- new events -----------------------------------------------------------------------------------------

await openStream({
  activity: (event) => {
    if (atTop) return show([event]);
    held.push(event);
    if (held.length > MOST) held.shift(); // the list shows at most MOST events
    tidy();
  },
  "sse.reset": () => list.prepend(piece("li", "gap", "Some events were lost here.")),
});

function release() {
  show(held);
  held = [];
  tidy();
}

new IntersectionObserver(([top]) => {
  atTop = top.isIntersecting;
  list.toggleAttribute("data-away", !atTop);
  if (atTop) release();
}).observe(byId("top"));

fresh.addEventListener("click", () => {
  release();
  list.focus({ preventScroll: true });
  scrollTo({ top: 0 });
});

// -- older events ---------------------------------------------------------------------------------------

/**
 * Returns events before the first one in the list, oldest first. A second stream replays the newest `count` events.
 * @param {number} count
 * @returns {Promise<Message[]>}
 */
async function replay(count) {
  const here = new Set([...list.children].map((item) => item.dataset.cursor));
  const { PushClient } = await import(main.dataset.client);
  const address = new URL(main.dataset.stream, location.href);
  address.searchParams.set("last", String(count));
  const stream = new PushClient(address);
  /** @type {Message[]} */
  const past = [];
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("older events did not come; try again")), PATIENCE);
    stream.on("activity", (/** @type {Message} */ event) => {
      if (!here.has(event.lastEventId)) return past.push(event);
      clearTimeout(late);
      resolve(past);
    });
  }).finally(() => stream.close());
}

older.addEventListener("click", async () => {
  older.disabled = true;
  end.textContent = "";
  const wanted = list.children.length + held.length + few;
  try {
    const past = await replay(wanted);
    list.append(...past.map(itemOf).reverse());
    while (list.children.length > MOST) list.lastElementChild.remove();
    // New events may have arrived meanwhile; then the replay contains fewer older ones.
    isAll = list.children.length + held.length < wanted;
    if (isAll) end.textContent = "This is all that is kept.";
  } catch (error) {
    end.textContent = /** @type {Error} */ (error).message;
  }
  older.disabled = false;
  tidy();
  if (older.hidden) list.focus({ preventScroll: true });
  else older.focus({ preventScroll: true });
});

// -- the form -----------------------------------------------------------------------------------------

byId("do").addEventListener("submit", async (/** @type {any} */ submit) => {
  submit.preventDefault();
  const { action, elements } = submit.target;
  const event = { kind: elements.kind.value, text: elements.text.value };
  await send(action, event, () => (elements.text.value = ""));
  elements.text.focus();
});
