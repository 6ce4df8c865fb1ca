// @ts-check
/**
 * The page "Live". It shows all data of events as text, never as markup.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, clock, openStream, piece, post, putOnTop } from "../../static/page.js";

const SHOWN_EVENTS = 200;
const SHOWN_STEPS = 30;
const SHOWN_TICKS = 60;

// -- the stream ---------------------------------------------------------------------------------------

let events = 0;
let connections = 0;
/** @type {number[]} */
const ticks = [];

const client = await openStream(
  {
    "sse.open": () => {
      byId("reconnects").textContent = connections++;
    },
    "sse.heartbeat": () => {
      byId("cursor").textContent = client.lastEventId;
    },
    message: showEvent,
    news: showEvent,
    chat: showEvent,
    private: showEvent,
    tick: showTick,
  },
  { lastEventId: "earliest", log },
);

/** @param {string} text */
function log(text) {
  const item = document.createElement("li");
  item.append(clock(new Date()), piece("span", "", text));
  putOnTop(byId("log"), item, SHOWN_STEPS);
}

function count() {
  events += 1;
  byId("count").textContent = events;
  byId("cursor").textContent = client.lastEventId;
}

// -- events -------------------------------------------------------------------------------------------

/** Shows an event. Events from the form have a text; other events may have any data. @param {Message} message */
function showEvent({ type, data }) {
  count();
  const own = typeof data?.text === "string";
  const item = document.createElement("li");
  item.dataset.type = type;
  item.append(
    piece("span", "badge", type),
    piece("span", "from", own ? (data.from ?? "") : ""),
    own && data.at ? clock(new Date(data.at)) : "",
    piece("p", own ? "text" : "text mono", own ? data.text : asText(data)),
  );
  putOnTop(byId("feed"), item, SHOWN_EVENTS);
  byId("nothing").hidden = true;
}

/** @param {unknown} data */
function asText(data) {
  return typeof data === "string" ? data : JSON.stringify(data);
}

// -- ticks --------------------------------------------------------------------------------------------

/** @param {Message} message */
function showTick({ data }) {
  count();
  ticks.push(data.value);
  if (ticks.length > SHOWN_TICKS) ticks.shift();
  byId("tick-value").textContent = data.value.toFixed(2);
  byId("tick-number").textContent = data.number;
  byId("tick-delay").textContent = `${Math.max(0, Math.round(Date.now() - data.at_ms))} ms`;
  drawCurve();
}

function drawCurve() {
  const low = Math.min(...ticks);
  const height = Math.max(...ticks) - low || 1;
  const points = ticks.map((value, at) => {
    const x = (240 * at) / (SHOWN_TICKS - 1);
    return `${x.toFixed(1)},${(52 - (48 * (value - low)) / height).toFixed(1)}`;
  });
  byId("curve").firstElementChild.setAttribute("points", points.join(" "));
}

// -- the form, for users who have signed in -------------------------------------------------------------------

byId("publish")?.addEventListener("submit", async (/** @type {any} */ submit) => {
  submit.preventDefault();
  const form = submit.target;
  const failure = await post(form.action, Object.fromEntries(new FormData(form)));
  const result = byId("published");
  result.toggleAttribute("data-failed", failure !== null);
  result.textContent = failure ?? "Published.";
  if (failure === null) form.elements.text.value = "";
  form.elements.text.focus();
});

byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    byId("copied").textContent = "Copied.";
  } catch {
    getSelection()?.selectAllChildren(byId("command")); // without HTTPS, only localhost may use the clipboard
    byId("copied").textContent = "Press Ctrl+C to copy.";
  }
});
