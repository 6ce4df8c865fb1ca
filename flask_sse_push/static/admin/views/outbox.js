// @ts-check
/**
 * The events of committed transactions that wait for the relay.
 * @import { View } from "../viewer.js"
 */

import { badge, make } from "../elements.js";
import { count, duration } from "../format.js";
import { table } from "../table.js";

/** @typedef {{ name: string, waiting: number, age: number, set_aside: number, error: string | null }} Outbox */

/** @type {View} */
export const outbox = {
  title: () => "Outbox",
  every: () => 5,
  load: (server, query, signal) => server.read("outbox", {}, signal),
  body: ({ outboxes, counted_at_most: most }) => [
    make(
      "section",
      { class: "card", "aria-label": "All outboxes" },
      make("p", { class: "soft", "data-summary": true }, "Events of committed transactions that the relay has yet to publish."),
      table(
        "Outboxes",
        [
          { title: "Outbox", cell: ({ name }) => name },
          { title: "Events waiting", cell: ({ waiting }) => `${count(waiting)}${waiting >= most ? " or more" : ""}`, kind: "number" },
          { title: "The oldest waits for", cell: ({ waiting, age }) => (waiting ? duration(age) : "–"), kind: "number" },
          { title: "Set aside", cell: ({ set_aside: rows }) => (rows ? badge(count(rows), "bad") : "0"), kind: "number" },
          { title: "State", cell: ({ error }) => error ?? "answers", kind: "text" },
        ],
        /** @type {Outbox[]} */ (outboxes),
        ({ name }) => name,
        "This app has no outbox: it publishes its events directly.",
      ),
    ),
  ],
};
