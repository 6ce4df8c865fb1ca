// @ts-check
/** The page "Order": shows the events of its channel, from the earliest on. */

import { byId, openStream, send } from "../../static/page.js";

const steps = [...byId("steps").children];

/** @type {Record<string, string>} */
const ENDS = { done: "Delivered", stopped: "Cancelled", failed: "Something went wrong" };

await openStream(
  {
    "run.begin": () => draw("Received", 0, true),
    progress: ({ data: { step, percent } }) => draw(step, percent, true),
    "run.end": ({ data: { status } }) => draw(null, byId("progress").value, false, ENDS[status]),
  },
  { lastEventId: "earliest" },
);

/**
 * Shows the progress of the order. If `step` is null, the list of steps stays as it is.
 * @param {string | null} step @param {number} percent @param {boolean} running @param {string | null} title
 */
function draw(step, percent, running, title = step) {
  byId("progress-title").textContent = title;
  byId("progress").value = percent;
  byId("place").disabled = running;
  byId("cancel").disabled = !running;
  const reached = steps.findIndex((item) => item.dataset.step === step);
  if (step) steps.forEach((item, at) => item.toggleAttribute("data-done", at <= reached));
}

for (const button of [byId("place"), byId("cancel")]) {
  button.addEventListener("click", () => send(button.dataset.url));
}
