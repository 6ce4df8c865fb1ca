// @ts-check
/**
 * A table that is read well on a phone too, with a sentence in its place if it is empty.
 * @import { Child } from "./elements.js"
 */

import { make } from "./elements.js";

/**
 * @template Row
 * @typedef Column
 * @property {string} title
 * @property {(row: Row) => Child} cell
 * @property {"number" | "text"} [kind] Numbers stand at the right edge of their column. Long texts may break anywhere.
 */

/**
 * @template Row
 * @param {string} label What the table shows, for screen readers. @param {Column<Row>[]} columns @param {Row[]} rows
 * @param {(row: Row) => string} key Names a row, so that the row stays when new data arrives.
 * @param {string} empty The sentence for a table without rows.
 */
export function table(label, columns, rows, key, empty) {
  if (!rows.length) return make("p", { class: "soft", "data-key": `no ${label}` }, empty);
  const head = columns.map(({ title, kind }) => make("th", { scope: "col", role: "columnheader", class: kind }, title));
  return make(
    "table",
    { role: "table", "aria-label": label, "data-key": label }, // the roles stay where the style makes blocks of the rows
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head)),
    make("tbody", { role: "rowgroup" }, ...rows.map((row) => line(columns, row, key(row)))),
  );
}

/** @template Row @param {Column<Row>[]} columns @param {Row} row @param {string} key */
function line(columns, row, key) {
  const cells = columns.map(({ title, cell, kind }) =>
    make("td", { role: "cell", "data-column": title, class: kind }, cell(row)),
  );
  return make("tr", { role: "row", "data-key": key }, ...cells);
}
