// @ts-check
/** The page "Stock": shows committed sales, and how their events come to this window. */

import { byId, clock, openStream, piece, putOnTop, send } from "../../static/page.js";

const SHOWN = 8;

const client = await openStream(
  {
    pieces: ({ data: { id, pieces } }) => {
      const cell = document.querySelector(`[data-article="${id}"]`);
      if (cell) cell.textContent = pieces;
      void showBacklog();
    },
    said: ({ data: { by, text, at } }) => {
      const item = piece("li");
      item.append(clock(new Date(at)), " ", piece("b", "", by), " ", piece("span", "text", text));
      putOnTop(byId("said"), item, SHOWN);
    },
  },
  { mode: byId("way").dataset.mode },
);
client.addEventListener("statechange", showMode);

let asked = 0;
// The browser notes each request when its response has ended.
new PerformanceObserver((list) => {
  asked += list.getEntries().filter(({ name }) => /[?&]poll=/.test(name)).length;
  showMode();
}).observe({ type: "resource", buffered: true });

/** Says whether this window has a stream, or asks again and again. */
function showMode() {
  byId("mode").textContent =
    client.mode === "poll" ? `short streams, ${asked} of them have ended so far` : "one open stream";
}

let again = 0;

/** Shows how many events wait in the outbox, until none waits: a row goes after its event has arrived. */
async function showBacklog() {
  clearTimeout(again);
  const answer = await fetch(byId("way").dataset.backlog).catch(() => null); // the server may be down
  if (!answer?.ok) return;
  const { waiting } = await answer.json();
  byId("waiting").textContent = waiting;
  if (waiting) again = setTimeout(showBacklog, 500);
}

byId("buttons").addEventListener("click", (/** @type {any} */ { target: { dataset } }) => {
  if (!dataset.url) return;
  const sale = { article: Number(byId("article").value), fails: "fails" in dataset };
  void send(dataset.url, sale).then(showBacklog);
});
