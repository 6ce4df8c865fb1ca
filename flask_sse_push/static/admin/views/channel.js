// @ts-check
/**
 * One channel: its policy, who listens, who is present, the kept events, and a form for a test event.
 * @import { Child } from "../elements.js"
 * @import { Action } from "../forms.js"
 * @import { About, View } from "../viewer.js"
 */

import { fragment } from "../address.js";
import { badge, factList, make, section } from "../elements.js";
import { field, writeForm } from "../forms.js";
import { ago, count, counted, duration, size } from "../format.js";
import { missing } from "../sentences.js";
import { table } from "../table.js";

/** @type {View} */
export const channel = {
  title: (query) => `Channel ${query.get("name") ?? ""}`,
  every: () => 5,
  async load(server, query, signal) {
    const [name, before] = [query.get("name"), query.get("before")];
    const about = server.read("channel", { name }, signal);
    const [facts, kept] = await Promise.all([about, server.read("channel/events", { name, before }, signal)]);
    return { ...facts, page: kept };
  },
  body: (data, about) => [missing(data.missing), facts(data, about), publishing(data.name), events(data, about)],
};

/** @param {any} channel @param {About} about */
function facts({ name, policy, listeners, presence, kept }, { now }) {
  const found = policy.pattern === null ? "no pattern matches, so the settings for all channels count" : policy.pattern;
  return section(
    "facts-title",
    "Who listens, and what is kept",
    factList(
      ["Streams that listen", make("a", { href: fragment("streams", { channel: name }) }, count(listeners))],
      ["Kept", `${kept.complete ? "" : "more than "}${counted(kept.events, "event")}, ${size(kept.bytes)}`],
      ["Newest event", ago(kept.newest && now - kept.newest)],
      ["Oldest kept event", ago(kept.oldest && now - kept.oldest)],
      ["Newest event that is gone", kept.gone === null ? "none is gone" : ago(now - kept.gone)],
      ["Open to", policy.public ? "everybody" : "those whom the app allows"],
      ["Keeps at most", limits(policy)],
      ["Events are gathered for", policy.batch_ms ? `${policy.batch_ms} ms` : "no time: each is sent at once"],
      ["Policy of", found],
      ["Present", presenceOf(presence)],
    ),
  );
}

/** @param {{ history: number, ttl: number, bytes: number | null }} policy */
function limits({ history, ttl, bytes }) {
  const parts = [counted(history, "event"), ttl && `for ${duration(ttl)}`, bytes && `${size(bytes)}, but always the newest event`];
  return parts.filter(Boolean).join(", ");
}

/** @param {{ count: number, users: string[] } | null} presence @returns {Child} */
function presenceOf(presence) {
  if (!presence) return "not counted on this channel";
  const { count: all, users } = presence;
  const more = all > users.length && `, and ${count(all - users.length)} more`;
  return make("span", {}, `${counted(all, "user")}${users.length ? ": " : ""}${users.join(", ")}`, more);
}

/** @param {string} name */
function publishing(name) {
  const data = make("textarea", { name: "data", rows: 2, spellcheck: "false" }, '"a test"');
  return section(
    "publish-title",
    "Publish a test event",
    writeForm(
      "publish",
      { channel: name },
      "Publish",
      field("Type", "type", "test"),
      make("label", {}, "Data: JSON, or else text", data),
    ),
  );
}

/** @type {Action} */
export async function publish(server, fields) {
  const [channel, type] = [fields.get("channel"), String(fields.get("type")).trim() || null];
  const { cursor, streams } = await server.write("channel/events", { channel, type, data: parsed(String(fields.get("data"))) });
  return `Published as ${cursor}; ${counted(streams, "stream")} of this channel ${streams === 1 ? "is" : "are"} open.`;
}

/** Returns the value of JSON; other text as it is. @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** @typedef {{ id: string | null, type: string | null, age: number, bytes: number | null, cut: boolean, channels: string[],
 *   expired: boolean, data: string | null }} KeptEvent `data` is null if the event is too large to be read. */

/** @param {any} channel @param {About} about */
function events({ name, page }, { query }) {
  return section(
    "events-title",
    "Kept events, the newest first",
    table(
      "Kept events",
      [
        { title: "Id", cell: ({ id }) => make("span", { class: "mono" }, id ?? "–") },
        { title: "Type", cell: ({ type }) => type ?? "message", kind: "text" },
        { title: "Age", cell: age, kind: "number" },
        { title: "Size", cell: ({ bytes }) => size(bytes), kind: "number" },
        { title: "Data", cell: dataOf, kind: "text" },
      ],
      /** @type {KeptEvent[]} */ (page.events),
      ({ id }) => id ?? "too large",
      "The broker keeps no event of this channel: none was published, or all have expired.",
    ),
    paging(name, query.get("before"), page.next),
  );
}

/** @param {KeptEvent} event */
const age = ({ age, expired }) => make("span", {}, ago(age), expired && " ", expired && badge("expired", "busy"));

/** @param {KeptEvent} event */
function dataOf({ data, cut }) {
  if (data === null) return make("span", { class: "soft" }, "This event is too large to be shown.");
  return make("pre", { class: "data" }, data, cut && " … (cut here)");
}

/** @param {string} name @param {string | null} before @param {string | null} next @returns {Child} */
function paging(name, before, next) {
  if (!before && !next) return null;
  return make(
    "nav",
    { class: "row", "aria-label": "Pages of events" },
    before && make("a", { href: fragment("channel", { name }), "data-key": "newest" }, "Newest events"),
    next && make("a", { href: fragment("channel", { name, before: next }), "data-key": "older" }, "Older events"),
  );
}
