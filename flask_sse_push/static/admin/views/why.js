// @ts-check
/**
 * The start: why a user got nothing, and the figures of all workers.
 * @import { Child } from "../elements.js"
 * @import { Finding } from "../findings.js"
 * @import { Server } from "../server.js"
 * @import { About, View } from "../viewer.js"
 */

import { badge, factList, make, section } from "../elements.js";
import { findingList, mainFinding } from "../findings.js";
import { field, queryForm } from "../forms.js";
import { count, size } from "../format.js";
import { missing } from "../sentences.js";
import { streamTable } from "./streams.js";
import { readWorkers } from "./workers.js";

/** @type {Finding} */
const FINE = { level: "ok", name: "fine", what: "No fault was found: events of this channel reach the streams below." };

const QUESTION = ["user", "channel", "address"];

/** @type {View} */
export const why = {
  title: () => "Who got nothing?",
  every: (query) => (isAsked(query) ? 30 : 5), // an answer takes a search in the broker
  isLive: true,
  form: (query) => [
    queryForm(
      "",
      "Find the reason",
      field("User", "user", query.get("user"), "the id, such as 7"),
      field("Channel", "channel", query.get("channel"), "user:<id>, if left empty"),
      field("Address", "address", query.get("address"), "of a visitor without an id"),
    ),
  ],
  async load(server, query, signal, workers) {
    const [reasons] = await Promise.all([ask(server, query, signal), readWorkers(server, query, signal, workers)]);
    return { reasons };
  },
  body: ({ reasons }, about) => [...(reasons ? answer(reasons, about) : []), overview(about)],
};

/** Whether the address has a question. @param {URLSearchParams} query */
const isAsked = (query) => QUESTION.some((name) => query.get(name));

/** Returns the answer to the question; null if the fields are empty. @param {Server} server @param {URLSearchParams} query @param {AbortSignal} signal */
function ask(server, query, signal) {
  return isAsked(query) ? server.read("why", Object.fromEntries(query), signal) : null;
}

/** @param {any} reasons @param {About} about @returns {Child[]} */
function answer({ user, channel, reason, findings, streams, missing: workers }, { now, query }) {
  const address = query.get("address");
  const first = findings.find((/** @type {Finding} */ { name }) => name === reason) ?? FINE;
  const others = findings.filter((/** @type {Finding} */ finding) => finding !== first);
  return [
    missing(workers),
    section(
      "answer-title",
      [user && `User ${user}`, address && `address ${address}`, channel && `channel ${channel}`].filter(Boolean).join(", ") || "The answer",
      mainFinding(first),
      others.length > 0 && make("h3", {}, "What else was found"),
      others.length > 0 && findingList(others),
      streams.length > 0 && streamTable(streams, now, ""),
    ),
  ];
}

/** @param {About} about */
function overview({ workers }) {
  const all = workers.all();
  const sum = (/** @type {"streams" | "buffered" | "behind"} */ name) => all.reduce((total, worker) => total + worker[name], 0);
  const streams = sum("streams");
  const own = streams > 0 && workers.isHeard && (streams === 1 ? ", this page's own" : ", one of them this page's own");
  const deaf = all.filter(({ worker, connected, streams }) => workers.isGone(worker) || (!connected && streams)).length;
  return section(
    "overview-title",
    "All workers now",
    factList(
      ["Streams", make("span", {}, make("a", { href: "#/streams" }, count(streams)), own)],
      ["Workers", make("span", {}, make("a", { href: "#/workers" }, count(all.length)), workers.isCounting ? " so far, counting" : workers.idle > 0 && `, and ${count(workers.idle)} idle`)],
      ["Workers without a link, or gone", deaf ? badge(count(deaf), "bad") : "none"],
      ["Streams that get missed events", count(sum("behind"))],
      ["Bytes waiting for clients", size(sum("buffered"))],
    ),
  );
}
