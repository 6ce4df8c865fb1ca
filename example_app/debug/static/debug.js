// @ts-check
/**
 * The page "Debug": shows this client, the bytes of its stream, and the server.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, openStream, piece, putOnTop, send } from "../../static/page.js";
import { readFrames } from "./frames.js";

const page = /** @type {HTMLElement} */ (document.querySelector("main"));
const [streams, workers, health, frames] = ["streams", "workers", "health", "frames"].map(byId);

const MOST_FRAMES = 100;
const MOST_DATA = 200;
/** Milliseconds between two requests to the server. */
const INTERVAL = 2000;

let connection = "";

// -- this client --------------------------------------------------------------------------------------

const client = await openStream({
  "sse.open": ({ data }) => {
    connection = data.connection;
    byId("cut").disabled = false;
  },
  "*": showMessage, // all types; for this, the client uses fetch instead of EventSource
});
client.addEventListener("statechange", showStats);
client.addEventListener("error", showStats);

/** @param {Message} message */
function showMessage({ type, data, lastEventId }) {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  fill({ "last-type": type, "last-at": new Date().toISOString(), "last-id": lastEventId });
  fill({ "last-data": text.length > MOST_DATA ? `${text.slice(0, MOST_DATA)}…` : text, connection });
  showStats();
}

function showStats() {
  const { state, received, bytes, errors, reconnects } = client.stats;
  fill({ connected: state === "open" ? "yes" : `no, ${state}`, received, bytes, errors, reconnects });
}

/** @param {Record<string, unknown>} texts The texts by the ids of their elements. */
function fill(texts) {
  for (const [id, text] of Object.entries(texts)) byId(id).textContent = text;
}

byId("send").addEventListener("click", (/** @type {any} */ { target }) => send(target.dataset.url));
byId("cut").addEventListener("click", () => send(streams.dataset.end, { connection }));

// -- the frames ---------------------------------------------------------------------------------------

const hold = byId("hold");

hold.addEventListener("click", () => {
  hold.setAttribute("aria-pressed", hold.getAttribute("aria-pressed") === "false");
});

readFrames(`${page.dataset.stream}&last=3`, (frame) => {
  if (hold.getAttribute("aria-pressed") === "false") putOnTop(frames, piece("li", "", frame), MOST_FRAMES);
});

// -- the server ---------------------------------------------------------------------------------------

async function look() {
  if (document.visibilityState === "visible") {
    await Promise.all([showHealth(), showWorkers(), showStreams()]).catch(() => {
      health.textContent = "no answer";
      health.dataset.level = "error";
    });
  }
  setTimeout(look, INTERVAL);
}

/** @type {Record<string, string>} */
const LEVELS = { HEALTHY: "success", WARNING: "warning", CRITICAL: "error" };

/** @param {string} url @returns {Promise<any>} */
async function get(url) {
  return (await fetch(url)).json();
}

async function showHealth() {
  const { status, reasons } = await get(health.dataset.url);
  health.textContent = status;
  health.dataset.level = LEVELS[status];
  byId("reasons").replaceChildren(
    ...reasons.map((/** @type {any} */ { what, advice }) => piece("li", "", `${what}: ${advice}`)),
  );
}

async function showWorkers() {
  const found = (await get(workers.dataset.url)).workers;
  workers.replaceChildren(
    ...found.map((/** @type {any} */ { worker, pid, streams, channels, connected }) =>
      row(workers, worker, pid, streams, channels, connected ? "connected" : "not in use"),
    ),
  );
}

/** Updates the rows of the table. Reuses their elements, so that a button keeps the focus. */
async function showStreams() {
  const found = await get(streams.dataset.url);
  byId("count").textContent = found.count;
  const gone = new Map([...streams.children].map((element) => [element.dataset.connection, element]));
  for (const stream of found.streams) {
    const element = gone.get(stream.connection) ?? streamRow(stream.connection);
    gone.delete(stream.connection);
    showStream(element, stream);
  }
  for (const element of gone.values()) element.remove();
}

/** @param {string} id */
function streamRow(id) {
  const element = row(streams, "", "", "", "", "", "", "", "", id);
  element.dataset.connection = id;
  element.children[1].className = "channels";
  const end = piece("button", "", "End");
  end.setAttribute("aria-label", `End the connection ${id}`);
  const cell = piece("td", "");
  cell.append(end);
  element.append(cell);
  streams.append(element);
  return element;
}

/** @param {HTMLElement} element @param {any} stream */
function showStream(element, { connection: id, user_id, channels, since, events, bytes, buffered, address, worker }) {
  const open = `${Math.max(0, Math.round(Date.now() / 1000 - since))} s`;
  const texts = [user_id ?? "–", channels.join(" "), open, events, bytes, buffered, address ?? "–", worker];
  texts.forEach((text, at) => {
    element.children[at].textContent = text;
  });
  element.classList.toggle("own", id === connection);
}

/** Makes a row. On a phone, each cell shows the name of its column. @param {any} body @param {string[]} texts */
function row(body, ...texts) {
  const element = piece("tr", "");
  const columns = body.closest("table").querySelectorAll("thead th");
  element.append(...texts.map((text) => piece("td", "", text)));
  [...element.children].forEach((/** @type {any} */ cell, at) => {
    cell.dataset.column = columns[at].textContent;
  });
  return element;
}

streams.addEventListener("click", (/** @type {any} */ { target }) => {
  if (target.matches("button")) send(streams.dataset.end, { connection: target.closest("tr").dataset.connection });
});

look();
