// @ts-check
/**
 * The streams of all workers, a page at a time.
 * @import { Child } from "../elements.js"
 * @import { View } from "../viewer.js"
 */

import { fragment } from "../address.js";
import { make } from "../elements.js";
import { field, queryForm } from "../forms.js";
import { counted, duration, size } from "../format.js";
import { missing } from "../sentences.js";
import { table } from "../table.js";

/** @typedef {{ connection: string, user_id: string | null, channels: string[], channel_count: number, address: string,
 *   user_agent: string, since: number, events: number, bytes: number, buffered: number, worker: string,
 *   transport: string }} Stream */

const FILTERS = ["user", "channel", "address", "worker"];

/** At most how many channels of a stream its row shows. */
const MOST_CHANNELS = 5;

/** @param {Stream} stream */
export const linkToStream = ({ connection, user_id: user }) =>
  make("a", { href: fragment("stream", { id: connection, user }), class: "mono" }, connection);

/** @param {string} name */
export const linkToChannel = (name) => make("a", { href: fragment("channel", { name }) }, name);

/** Makes links to channels, with commas between them. @param {string[]} names @param {number} all How many there are. */
export function linksToChannels(names, all) {
  const links = names.flatMap((name, index) => (index ? [", ", linkToChannel(name)] : [linkToChannel(name)]));
  return make("span", {}, ...links, all > names.length && `, and ${all - names.length} more`);
}

/** Makes the table of streams. @param {Stream[]} streams @param {number} now @param {string} empty */
export function streamTable(streams, now, empty) {
  return table(
    "Streams",
    [
      { title: "Stream", cell: linkToStream },
      { title: "User", cell: ({ user_id: user }) => user !== null && make("a", { href: fragment("streams", { user }) }, user), kind: "text" },
      { title: "Channels", cell: (row) => linksToChannels(row.channels.slice(0, MOST_CHANNELS), row.channel_count), kind: "text" },
      { title: "Address", cell: ({ address }) => address },
      { title: "Open for", cell: ({ since }) => duration(now - since), kind: "number" },
      { title: "Events", cell: ({ events }) => events, kind: "number" },
      { title: "Waiting", cell: ({ buffered }) => size(buffered), kind: "number" },
    ],
    streams,
    ({ connection }) => connection,
    empty,
  );
}

/** @type {View} */
export const streams = {
  title: () => "Streams",
  every: () => 5,
  form: (query) => [
    queryForm(
      "streams",
      "Filter",
      field("User", "user", query.get("user")),
      field("Channel", "channel", query.get("channel")),
      field("Address", "address", query.get("address")),
      query.has("worker") && field("Worker", "worker", query.get("worker")),
    ),
  ],
  load: (server, query, signal) => server.read("streams", Object.fromEntries(query), signal),
  body: (data, { query, now }) => [
    missing(data.missing),
    make(
      "section",
      { class: "card", "aria-label": "Streams found" },
      make("p", { "data-summary": true }, `${counted(data.total, "stream")}${filterOf(query)}, newest first.`),
      streamTable(data.streams, now, "No stream is open here. A filter matches the whole value, not a part of it."),
      paging(query, data.next),
    ),
  ],
};

/** @param {URLSearchParams} query */
function filterOf(query) {
  const given = FILTERS.filter((name) => query.get(name)).map((name) => `${name} ${query.get(name)}`);
  return given.length ? ` of ${given.join(", ")}` : "";
}

/** @param {URLSearchParams} query @param {string | null} next @returns {Child} */
function paging(query, next) {
  const { after, ...filters } = Object.fromEntries(query);
  if (!after && !next) return null;
  return make(
    "nav",
    { class: "row", "aria-label": "Pages of streams" },
    after && make("a", { href: fragment("streams", filters), "data-key": "first" }, "First page"),
    next && make("a", { href: fragment("streams", { ...filters, after: next }), "data-key": "next" }, "Next page"),
  );
}
