// @ts-check
/** The page "Board": htmx does the work. This script shows the state of the stream, as on all pages. */

import { byId } from "../../static/page.js";

/** @param {string} state @param {string} text */
function show(state, text) {
  Object.assign(byId("state"), { textContent: text }).dataset.state = state;
}

/** Whether the stream was open before. */
let wasOpen = false;

document.addEventListener("htmx:sseOpen", (/** @type {any} */ { detail: { source } }) => {
  show(wasOpen ? "resumed" : "open", wasOpen ? "Live, resumed" : "Live");
  wasOpen = true;
  source.addEventListener("sse.close", (/** @type {MessageEvent} */ { data }) => {
    if (["logout", "revoked"].includes(JSON.parse(data).reason)) location.reload();
  });
});
document.addEventListener("htmx:sseError", async (/** @type {any} */ { detail: { source } }) => {
  show("waiting", "Waiting to reconnect…");
  if (source.readyState !== EventSource.CLOSED) return;
  const page = /** @type {HTMLElement} */ (document.querySelector("main"));
  const answer = await fetch(page.dataset.whoami ?? "").catch(() => null); // the server may be down
  if (answer?.ok && (await answer.json()).user === null) location.reload();
});
