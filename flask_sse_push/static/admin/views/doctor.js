// @ts-check
/**
 * What the doctor finds in the settings, in Redis and in the worker that answers.
 * @import { Finding } from "../findings.js"
 * @import { View } from "../viewer.js"
 */

import { make } from "../elements.js";
import { findingList } from "../findings.js";
import { counted } from "../format.js";
import { queryForm } from "../forms.js";

/** @type {View} */
export const doctor = {
  title: () => "Doctor",
  every: () => 0, // an examination may take some seconds
  form: () => [queryForm("doctor", "Examine again")],
  load: (server, query, signal) => server.read("doctor", {}, signal),
  body: ({ findings }) => {
    const faults = findings.filter((/** @type {Finding} */ { level }) => level !== "ok").length;
    const named = findings.map((/** @type {Finding} */ finding) => ({ ...finding, what: `${finding.name}: ${finding.what}` }));
    return [
      make(
        "section",
        { class: "card", "aria-label": "Findings" },
        make("p", { "data-summary": true }, faults ? `${counted(faults, "finding")} to look at.` : "The doctor found no fault."),
        findingList(named),
      ),
    ];
  },
};
