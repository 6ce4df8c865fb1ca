// @ts-check
/**
 * The admin page: connects its parts, and shows whether the page is live.
 * @import { Failure } from "./server.js"
 * @import { View } from "./viewer.js"
 * @import { Worker } from "./workers.js"
 */

import { PushClient } from "../push-client.js";
import { make } from "./elements.js";
import { handleForms } from "./forms.js";
import { goLive } from "./live.js";
import { trouble } from "./sentences.js";
import { Server } from "./server.js";
import { Viewer } from "./viewer.js";
import { channel, publish } from "./views/channel.js";
import { channels } from "./views/channels.js";
import { doctor } from "./views/doctor.js";
import { outbox } from "./views/outbox.js";
import { runs } from "./views/runs.js";
import { disconnect, stream } from "./views/stream.js";
import { streams } from "./views/streams.js";
import { why } from "./views/why.js";
import { workers } from "./views/workers.js";
import { Workers } from "./workers.js";

/** The views, by their names in addresses. */
const VIEWS = /** @type {Record<string, View>} */ ({ "": why, streams, channels, workers, runs, outbox, doctor, stream, channel });

/** The views that the navigation shows. */
const NAVIGATION = ["", "streams", "channels", "workers", "runs", "outbox", "doctor"];

/** The view in the navigation under which another view stands. @type {Record<string, string>} */
const PARENTS = { stream: "streams", channel: "channels" };

const [heading, place, notice, said, state] = ["h1", "#view", "#notice", "#said", "#state"].map(
  (selector) => /** @type {HTMLElement} */ (document.querySelector(selector)),
);
const navigation = /** @type {HTMLElement} */ (document.querySelector(".bar nav"));

const server = new Server();
const reports = new Workers();

/** Says what is wrong, once. @param {Failure | null} failure @param {Date | null} since When the data on the page was read. */
function tell(failure, since) {
  const text = failure ? trouble(failure, since) : "";
  if (notice.textContent !== text) notice.textContent = text;
  notice.dataset.level = failure?.isRefusal ? "bad" : "";
}

const say = (/** @type {string} */ summary) => (said.textContent = summary);
const viewer = new Viewer(server, reports, VIEWS, { heading, place, tell, say });

/** Shows the view of the address. @param {boolean} isFirst Whether the page has just been loaded. */
function open(isFirst) {
  const before = viewer.name;
  viewer.open(location.hash);
  const chosen = PARENTS[viewer.name] ?? viewer.name;
  for (const link of navigation.querySelectorAll("a")) {
    link.ariaCurrent = link.dataset.view === chosen ? "page" : null;
  }
  if (isFirst) firstField()?.focus({ preventScroll: true });
  else if (viewer.name !== before) heading.focus();
}

/** Returns the field of a question that was not asked yet; null in other views. */
function firstField() {
  const isAsked = viewer.name !== "" || location.hash.includes("?");
  return isAsked ? null : /** @type {HTMLInputElement | null} */ (place.querySelector("form input"));
}

navigation.append(
  ...NAVIGATION.map((name) => make("a", { href: `#/${name}`, "data-view": name }, VIEWS[name].title(new URLSearchParams()))),
);
addEventListener("hashchange", () => open(false));
document.addEventListener("visibilitychange", () => document.hidden || viewer.refresh());
handleForms(server, { disconnect, publish }, () => viewer.refresh());
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the address of the view
  heading.focus();
});
open(true);
goLive(server, PushClient, takeReport, showState);

/** @param {Worker} report */
function takeReport(report) {
  reports.note(report);
  viewer.redraw();
}

/** @param {string} current @param {string} sentence @param {boolean} hasTurned Whether the page is live again, or no more. */
function showState(current, sentence, hasTurned) {
  state.dataset.state = current;
  state.textContent = sentence;
  if (hasTurned) viewer.refresh();
}
