// @ts-check
/**
 * The runs that go on, or ended lately, on all workers.
 * @import { View } from "../viewer.js"
 */

import { make } from "../elements.js";
import { count, counted, duration } from "../format.js";
import { missing } from "../sentences.js";
import { table } from "../table.js";
import { linkToChannel } from "./streams.js";

/** @typedef {{ key: string, id: string, channel: string, worker: string, events: number, waiting: number, since: number,
 *   ended: string | null }} Run */

/** @type {View} */
export const runs = {
  title: () => "Runs",
  every: () => 5,
  load: (server, query, signal) => server.read("runs", {}, signal),
  body: ({ runs, missing: workers }, { now }) => [
    missing(workers),
    make(
      "section",
      { class: "card", "aria-label": "All runs" },
      make("p", { "data-summary": true }, `${counted(runs.length, "run")}.`),
      table(
        "Runs",
        [
          { title: "Run", cell: ({ key }) => key, kind: "text" },
          { title: "Channel", cell: ({ channel }) => linkToChannel(channel), kind: "text" },
          { title: "Worker", cell: ({ worker }) => make("span", { class: "mono" }, worker) },
          { title: "Since", cell: ({ since }) => duration(now - since), kind: "number" },
          { title: "Events", cell: ({ events }) => count(events), kind: "number" },
          { title: "Not yet published", cell: ({ waiting }) => count(waiting), kind: "number" },
          { title: "State", cell: ({ ended }) => ended ?? "goes on" },
        ],
        /** @type {Run[]} */ (runs),
        ({ key, id }) => `${key} ${id}`,
        "No run goes on. The app starts a run with sse.run(…).",
      ),
    ),
  ],
};
