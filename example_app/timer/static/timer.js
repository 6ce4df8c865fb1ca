/** The page "Timer": shows the last that the channel told. */

import { reloadWhenSignedOut, showState } from "../../static/stream-state.js";

const page = document.querySelector("main");
const { PushClient } = await import(page.dataset.client);
const byId = (id) => document.getElementById(id);

const ENDS = { done: "Time is up", stopped: "Stopped", failed: "The timer's worker went away" };

const client = new PushClient(page.dataset.stream);
showState(client, byId("state"), () => {});
reloadWhenSignedOut(client, page.dataset.whoami);

client.on("left", ({ data: { left, by } }) => {
  byId("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  running(true, `Started by ${by}`);
});
client.on("run.end", ({ data: { status } }) => running(false, ENDS[status]));

function running(is, text) {
  if (byId("says").textContent !== text) byId("says").textContent = text;
  byId("start").querySelector(".primary").disabled = is;
  byId("stop").disabled = !is;
}

byId("start").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  byId("problem").textContent = (await post(submit.target.action, new FormData(submit.target))) ?? "";
});
byId("stop").addEventListener("click", async () => {
  byId("problem").textContent = (await post(byId("stop").dataset.url)) ?? "";
});

/** Tells the app; returns what went wrong, or null. */
async function post(url, body) {
  try {
    const answer = await fetch(url, { method: "POST", body });
    return answer.ok ? null : (await answer.json()).error;
  } catch {
    return "The server did not answer; try again.";
  }
}
