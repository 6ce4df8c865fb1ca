/** The page "Live". Whatever comes in is put in as text, never as markup. */

import { reloadWhenSignedOut, showState } from "../../static/stream-state.js";

const page = document.querySelector("main");
const { PushClient } = await import(page.dataset.client);

const SHOWN_EVENTS = 200;
const SHOWN_STEPS = 30;
const SHOWN_TICKS = 60;

const byId = (id) => document.getElementById(id);

/** @param {Date} moment */
function clock(moment) {
  const element = document.createElement("time");
  element.dateTime = moment.toISOString();
  element.textContent = moment.toLocaleTimeString([], { hour12: false });
  return element;
}

/** A new element with a class and a text. */
function piece(tag, name, text) {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

/** Puts an item on top of a list, and takes old ones off its end. */
function putOnTop(list, item, most) {
  list.prepend(item);
  while (list.children.length > most) list.lastElementChild.remove();
}

// -- the stream ---------------------------------------------------------------------------------------

const client = new PushClient(page.dataset.stream, { lastEventId: "earliest" });

function tell(text) {
  const item = document.createElement("li");
  item.append(clock(new Date()), piece("span", "", text));
  putOnTop(byId("log"), item, SHOWN_STEPS);
}

let events = 0;
let connections = 0;

function count() {
  events += 1;
  byId("count").textContent = events;
  byId("cursor").textContent = client.lastEventId;
}

showState(client, byId("state"), tell);
reloadWhenSignedOut(client, page.dataset.whoami);
client.on("sse.open", () => {
  byId("reconnects").textContent = connections++;
});
client.on("sse.heartbeat", () => {
  byId("cursor").textContent = client.lastEventId;
});

// -- events -------------------------------------------------------------------------------------------

/** Events of the form have an author; events from anywhere else may be anything. */
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

function asText(data) {
  return typeof data === "string" ? data : JSON.stringify(data);
}

for (const type of ["message", "news", "chat", "private"]) client.on(type, showEvent);

// -- ticks --------------------------------------------------------------------------------------------

const ticks = [];

client.on("tick", ({ data }) => {
  count();
  ticks.push(data.value);
  if (ticks.length > SHOWN_TICKS) ticks.shift();
  byId("tick-value").textContent = data.value.toFixed(2);
  byId("tick-number").textContent = data.number;
  byId("tick-delay").textContent = `${Math.max(0, Math.round(Date.now() - data.at_ms))} ms`;
  drawCurve();
});

function drawCurve() {
  const low = Math.min(...ticks);
  const height = Math.max(...ticks) - low || 1;
  const points = ticks.map((value, at) => {
    const x = (240 * at) / (SHOWN_TICKS - 1);
    return `${x.toFixed(1)},${(52 - (48 * (value - low)) / height).toFixed(1)}`;
  });
  byId("curve").firstElementChild.setAttribute("points", points.join(" "));
}

// -- the form, for who has signed in -------------------------------------------------------------------

byId("publish")?.addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const form = submit.target;
  const failure = await publish(form.action, Object.fromEntries(new FormData(form)));
  const result = byId("published");
  result.toggleAttribute("data-failed", failure !== null);
  result.textContent = failure ?? "Published.";
  if (failure === null) form.elements.text.value = "";
  form.elements.text.focus();
});

/** Sends an event to the app; returns what went wrong, or null. */
async function publish(url, event) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(event),
    });
    return answer.ok ? null : (await answer.json()).error;
  } catch {
    return "The server did not answer; try again.";
  }
}
