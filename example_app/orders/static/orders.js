/** The page "Order": draws what the channel tells, from its earliest event on. */

import { reloadWhenSignedOut, showState } from "../../static/stream-state.js";

const page = document.querySelector("main");
const { PushClient } = await import(page.dataset.client);
const byId = (id) => document.getElementById(id);
const steps = [...byId("steps").children];

const ENDS = { done: "Delivered", stopped: "Cancelled", failed: "Something went wrong" };

const client = new PushClient(page.dataset.stream, { lastEventId: "earliest" });
showState(client, byId("state"), () => {});
reloadWhenSignedOut(client, page.dataset.whoami);

client.on("run.begin", () => draw("Received", 0, true));
client.on("progress", ({ data: { step, percent } }) => draw(step, percent, true));
client.on("run.end", ({ data: { status } }) => draw(null, byId("progress").value, false, ENDS[status]));

/** Shows how far the order is. Without a step, the steps stay as they are. */
function draw(step, percent, running, title = step) {
  byId("progress-title").textContent = title;
  byId("progress").value = percent;
  byId("place").disabled = running;
  byId("cancel").disabled = !running;
  const reached = steps.findIndex((item) => item.dataset.step === step);
  if (step) steps.forEach((item, at) => item.toggleAttribute("data-done", at <= reached));
}

for (const button of [byId("place"), byId("cancel")]) {
  button.addEventListener("click", async () => {
    byId("problem").textContent = (await post(button.dataset.url)) ?? "";
  });
}

/** Tells the app; returns what went wrong, or null. */
async function post(url) {
  try {
    const answer = await fetch(url, { method: "POST" });
    return answer.ok ? null : (await answer.json()).error;
  } catch {
    return "The server did not answer; try again.";
  }
}
