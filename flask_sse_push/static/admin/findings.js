// @ts-check
/**
 * Findings, of the doctor and about a user who got nothing: faults first.
 * @import { Child } from "./elements.js"
 */

import { fragment } from "./address.js";
import { badge, make } from "./elements.js";

/** @typedef {{ level: "ok" | "warning" | "broken", name: string, what: string, why?: string, advice?: string,
 *   link?: { kind: string, name: string } | null }} Finding */

/** @type {Record<string, ["good" | "busy" | "bad", string]>} The tint and the word of a level. */
const LEVELS = { ok: ["good", "fine"], warning: ["busy", "look"], broken: ["bad", "fault"] };

const ORDER = ["broken", "warning", "ok"];

/** @param {Finding[]} findings */
export function findingList(findings) {
  const sorted = [...findings].sort((one, two) => ORDER.indexOf(one.level) - ORDER.indexOf(two.level));
  return make("ul", { class: "plain findings" }, ...sorted.map(line));
}

/** @param {Finding} finding */
function line(finding) {
  const [tint, word] = LEVELS[finding.level] ?? ["", finding.level];
  return make("li", { "data-name": finding.name }, badge(word, tint), make("div", {}, ...text(finding)));
}

/** Makes the most important finding, above the others. @param {Finding} finding */
export function mainFinding(finding) {
  const [tint] = LEVELS[finding.level] ?? [""];
  return make("div", { class: "notice", "data-level": tint, "data-name": finding.name, "data-summary": true }, ...text(finding));
}

/** @param {Finding} finding @returns {Child[]} */
function text({ what, why, advice, link }) {
  return [make("p", {}, what), why && make("p", { class: "soft" }, why), advice && make("p", {}, advice), linkOf(link)];
}

/** Makes the link to the view where the finding shows. @param {Finding["link"]} link @returns {Child} */
function linkOf(link) {
  if (!link) return null;
  const { kind, name } = link;
  const views = {
    stream: [fragment("stream", { id: name }), `Show stream ${name}`],
    channel: [fragment("channel", { name }), `Show channel ${name}`],
    doctor: [fragment("doctor"), "Ask the doctor"],
    outbox: [fragment("outbox"), "Show the outboxes"],
  };
  const [href, text] = /** @type {Record<string, string[]>} */ (views)[kind] ?? [fragment("workers"), "Show the workers"];
  return make("a", { href }, text);
}
