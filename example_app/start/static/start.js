// @ts-check
/**
 * The start page: draws a picture for each tile from every event `tour`. Screen readers do not read the pictures.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, openStream, piece } from "../../static/page.js";

const SHOWN_TICKS = 40;
const SHOWN_FRAMES = 4;
/** Milliseconds after which the page says that nothing moves. */
const PATIENCE = 3000;

/** @type {number[]} */
const ticks = [];
/** @type {string[]} */
const frames = [];

/** Shows elements in the tile of a page. @param {string} name @param {(Node | string)[]} content */
function show(name, ...content) {
  document.querySelector(`[data-tile=${name}]`)?.replaceChildren(...content);
}

/** @param {string} by @param {string} text @param {string} kind */
function line(by, text, kind = "line") {
  const element = piece("span", kind);
  element.append(piece("b", "", by), " ", text);
  return element;
}

/** @param {number[]} values @param {number} low @param {number} high */
function curve(values, low, high) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const x = (/** @type {number} */ at) => (240 * at) / Math.max(1, values.length - 1);
  const y = (/** @type {number} */ value) => 60 - (56 * (value - low)) / (high - low || 1);
  path.setAttribute("points", values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
  svg.setAttribute("viewBox", "0 0 240 64");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(path);
  return svg;
}

/** @param {number} percent */
function bar(percent) {
  const element = document.createElement("progress");
  Object.assign(element, { max: 100, value: percent });
  return element;
}

/** @param {[string, string]} said */
const saying = ([by, text]) => line(by, text);

/** @param {[string, string]} letter */
const bubble = ([by, text]) => piece("span", by === "ada" ? "bubble own" : "bubble", text);

/** @param {[string, number]} card Its text, and the number of its column. */
function card([text, column]) {
  const item = piece("span", "bubble", text);
  item.dataset.column = String(column);
  return item;
}

/** @param {[string, string, string]} sale */
function sale([end, article, text]) {
  const item = line(article, text);
  item.prepend(piece("i", "dot"));
  item.dataset.end = end;
  return item;
}

/** @param {[string, string, string]} event */
function happening([kind, by, text]) {
  const item = line(by, text);
  item.prepend(piece("i", "dot"));
  item.dataset.kind = kind;
  return item;
}

/** @param {[string, string]} notice */
function toast([level, text]) {
  const item = piece("span", "toast", text);
  item.dataset.level = level;
  return item;
}

/** @param {[string, string]} entry */
function logged([level, text]) {
  const item = line(level, text, "line mono");
  item.dataset.level = level;
  return item;
}

/** Draws a tile from its part of the event. @type {Record<string, (part: any) => void>} */
const TILES = {
  assistant: ({ question, answer, done }) =>
    show("assistant", piece("span", "bubble own", question), piece("span", "bubble", done ? answer : `${answer} ▍`)),
  orders: ({ step, percent }) =>
    show("orders", piece("span", "figure", step), bar(percent), piece("span", "line", `${Math.round(percent)} %`)),
  board: (cards) => show("board", ...cards.map(card)),
  stock: (sales) => show("stock", ...sales.map(sale)),
  timer: ({ left }) =>
    show("timer", piece("span", "figure big mono", `0:${String(left).padStart(2, "0")}`)),
  activity: (events) => show("activity", ...events.map(happening)),
  rooms: ({ here, said }) => show("rooms", line("Here:", here.join(", "), "line soft"), ...said.map(saying)),
  messages: ({ letters, delivered }) =>
    show("messages", ...letters.map(bubble), piece("span", "line soft end", delivered ? "Delivered" : "Sent")),
  notifications: ({ unread, notices }) =>
    show("notifications", piece("span", "count", unread), ...notices.map(toast)),
  dashboard: (/** @type {number[]} */ load) =>
    show("dashboard", line(`${load[load.length - 1]} %`, "processor", "line head"), curve(load, 0, 100)),
  logs: (entries) => show("logs", ...entries.map(logged)),
};

// -- the stream ---------------------------------------------------------------------------------------

/** The tile "Debug" shows the events of this stream. @param {Message} message */
function showFrame({ type, lastEventId }) {
  frames.push(`event: ${type}\nid: ${lastEventId}`);
  if (frames.length > SHOWN_FRAMES) frames.shift();
  show("debug", ...frames.map((frame) => piece("span", "line mono", frame.replace("\n", "  "))));
}

await openStream({
  tick: (message) => {
    ticks.push(message.data.value);
    if (ticks.length > SHOWN_TICKS) ticks.shift();
    show("live", line(message.data.value.toFixed(2), `tick ${message.data.number}`, "line head"),
      curve(ticks, Math.min(...ticks), Math.max(...ticks)));
    showFrame(message);
  },
  tour: (message) => {
    byId("quiet").hidden = true;
    for (const [name, part] of Object.entries(message.data)) TILES[name]?.(part);
    showFrame(message);
  },
});

setTimeout(() => {
  byId("quiet").hidden = frames.length > 0;
}, PATIENCE);
