// @ts-check
/** The page "Timer": shows the latest event of its channel. */

import { byId, openStream, send } from "../../static/page.js";

/** @type {Record<string, string>} */
const ENDS = { done: "Time is up", stopped: "Stopped", failed: "The timer's worker went away" };

await openStream({
  left: ({ data: { left, by } }) => {
    byId("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    running(true, `Started by ${by}`);
  },
  "run.end": ({ data: { status } }) => running(false, ENDS[status]),
});

/** @param {boolean} is @param {string} text */
function running(is, text) {
  if (byId("says").textContent !== text) byId("says").textContent = text;
  byId("start").querySelector(".primary").disabled = is;
  byId("stop").disabled = !is;
}

byId("start").addEventListener("submit", (/** @type {any} */ submit) => {
  submit.preventDefault();
  const { action, elements } = submit.target;
  void send(action, { seconds: Number(elements.seconds.value) });
});
byId("stop").addEventListener("click", () => send(byId("stop").dataset.url));
