// @ts-check
/**
 * The channels with the newest events.
 * @import { View } from "../viewer.js"
 */

import { make } from "../elements.js";
import { field, queryForm } from "../forms.js";
import { ago } from "../format.js";
import { table } from "../table.js";
import { linkToChannel } from "./streams.js";

/** @type {View} */
export const channels = {
  title: () => "Channels",
  every: () => 5,
  form: (query) => [
    queryForm("channels", "Find", field("Name contains", "contains", query.get("contains"))),
    queryForm("channel", "Open", field("Exact name of a channel", "name", "")),
  ],
  load: (server, query, signal) => server.read("channels", { contains: query.get("contains") }, signal),
  body: ({ channels }, { now }) => [
    make(
      "section",
      { class: "card", "aria-label": "Channels found" },
      make("p", { "data-summary": true }, "The channels with the newest events."),
      table(
        "Channels",
        [
          { title: "Channel", cell: ({ name }) => linkToChannel(name), kind: "text" },
          { title: "Newest event", cell: ({ newest }) => ago(newest && now - newest), kind: "number" },
        ],
        /** @type {{ name: string, newest: number | null }[]} */ (channels),
        ({ name }) => name,
        "No channel with this name has kept events. Open a channel by its exact name to see who listens.",
      ),
    ),
  ],
};
