// @ts-check
/**
 * One stream: what it listens to, what waits for its client, and how to close it.
 * @import { Action } from "../forms.js"
 * @import { About, View } from "../viewer.js"
 */

import { fragment } from "../address.js";
import { badge, factList, make, section } from "../elements.js";
import { writeForm } from "../forms.js";
import { ago, counted, duration, size } from "../format.js";
import { missing } from "../sentences.js";
import { Failure } from "../server.js";
import { linksToChannels } from "./streams.js";

/** So many events behind the newest one are counted at most. */
const MAX_LAG = 100;

/** @type {View} */
export const stream = {
  title: (query) => `Stream ${query.get("id") ?? ""}`,
  every: () => 5,
  load: (server, query, signal) => server.read(route(query.get("id")), {}, signal).catch(unlessGone),
  body: ({ stream, missing: workers }, about) => [
    missing(workers),
    ...(stream ? [facts(stream, about), closing(stream)] : [ended(about.query.get("user"))]),
  ],
};

/** @param {string | null} connection */
const route = (connection) => `streams/${encodeURIComponent(connection ?? "")}`;

/** @param {Failure} failure */
function unlessGone(failure) {
  if (failure.status === 404) return { stream: null };
  throw failure;
}

/** @param {string | null} user */
function ended(user) {
  const more = user !== null && make("a", { href: fragment("streams", { user }) }, `Show the streams of user ${user}`);
  const text = "This stream has ended: no worker has it. A client that connects again gets a stream with another name. ";
  return make("p", { class: "card", "data-summary": true, "data-key": "ended" }, text, more);
}

/** @param {any} stream @param {About} about */
function facts(stream, { now }) {
  return section(
    "facts-title",
    "What it does",
    factList(
      ["State", state(stream)],
      ["User", stream.user_id !== null && make("a", { href: fragment("streams", { user: stream.user_id }) }, stream.user_id)],
      ["Address", stream.address],
      ["Worker", make("a", { href: fragment("streams", { worker: stream.worker }) }, stream.worker)],
      ["Open for", duration(now - stream.since)],
      ["Cursor", make("span", { class: "mono" }, stream.cursor ?? "–")],
      ["Behind the newest event", lag(stream.lag)],
      ["Waiting for the client", waiting(stream)],
      ["Events of it were lost", stream.lost_at === null ? "no" : ago(now - stream.lost_at)],
      ["Sent", `${counted(stream.events, "event")}, ${size(stream.bytes)}`],
      ["Transport", [stream.transport, stream.poll && "short streams", stream.compressed && "compressed"].filter(Boolean).join(", ")],
      ["Rights are checked again in", duration(stream.rechecked_in)],
      ["Browser", stream.user_agent],
    ),
    make("h3", {}, counted(stream.channel_count, "channel")),
    make("p", { class: "break" }, linksToChannels(stream.channels, stream.channel_count)),
  );
}

/** @param {any} stream */
function state({ closing, behind, buffered }) {
  if (closing) return badge("closing", "busy");
  if (behind) return badge("gets missed events", "busy");
  return buffered ? badge("its client reads slowly", "busy") : badge("up to date", "good");
}

/** @param {any} stream */
function waiting({ buffered, waiting }) {
  return waiting == null ? size(buffered) : `${size(buffered)}; it has read nothing for ${duration(waiting)}`;
}

/** @param {{ events: number | null, seconds: number | null }} lag */
function lag({ events, seconds }) {
  if (events === 0) return "not at all";
  const age = seconds == null ? "" : `, the oldest of them is ${duration(seconds)} old`;
  const more = events === MAX_LAG ? " or more" : "";
  return events == null ? "–" : `${counted(events, "event")}${more}${age}`;
}

/** @param {any} stream */
function closing({ connection }) {
  const again = make("input", { type: "checkbox", name: "reconnect", value: "yes", checked: true });
  return section(
    "closing-title",
    "Close it",
    make("p", { class: "soft" }, "A client that connects again misses no event. Any other client stays away until its page is loaded again."),
    writeForm("disconnect", { connection }, "Disconnect", make("label", { class: "check" }, again, "It may connect again")),
  );
}

/** @type {Action} */
export async function disconnect(server, fields) {
  const reconnect = fields.has("reconnect");
  await server.write(`${route(String(fields.get("connection")))}/disconnect`, { reconnect });
  return reconnect ? "The worker closes the stream; the client connects again." : "The worker closes the stream for good.";
}

