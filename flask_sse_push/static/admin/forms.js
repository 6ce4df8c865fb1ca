// @ts-check
/**
 * What forms and their buttons do. A form with `data-go` opens the view of this name with its fields as the query. A
 * form with `data-write` changes something on the server, and shows the answer beside its button.
 * @import { Child } from "./elements.js"
 * @import { Server } from "./server.js"
 */

import { fragment } from "./address.js";
import { make } from "./elements.js";
import { sentence } from "./sentences.js";
import { Failure } from "./server.js";

/** Makes a field with a label. @param {string} label @param {string} name @param {string | null} value */
export function field(label, name, value, hint = "") {
  const limits = { maxlength: 500, autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  return make("label", {}, label, make("input", { name, value: value ?? "", placeholder: hint || null, ...limits }));
}

/** Makes a form whose fields become the query of a view. @param {string} view @param {string} button @param {Child[]} fields */
export function queryForm(view, button, ...fields) {
  const send = make("button", { class: "primary" }, button);
  const names = fields.length ? { role: "search", "aria-label": button } : {};
  return make("form", { class: "card", ...names, "data-go": view, "data-key": view }, make("div", { class: "row" }, ...fields, send));
}

/**
 * Makes a form that changes something.
 * @param {string} action The name of the function that sends it. @param {Record<string, string>} hidden Fields that are not shown.
 * @param {string} button @param {Child[]} fields
 */
export function writeForm(action, hidden, button, ...fields) {
  return make(
    "form",
    { class: "row", "data-write": action },
    ...Object.entries(hidden).map(([name, value]) => make("input", { type: "hidden", name, value })),
    ...fields,
    make("button", {}, button),
    make("output", { class: "answer", "data-own": true }),
  );
}

/** @typedef {(server: Server, fields: FormData) => Promise<string>} Action Returns a sentence about the success. */

/**
 * Handles the forms of the page.
 * @param {Server} server @param {Record<string, Action>} actions @param {() => void} refresh Called after a change.
 */
export function handleForms(server, actions, refresh) {
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    event.preventDefault();
    if (form.dataset.go !== undefined) go(form);
    else send(form, server, actions[form.dataset.write ?? ""]).then(refresh);
  });
}

/** Opens the view that a form names. @param {HTMLFormElement} form */
function go(form) {
  const fields = [...new FormData(form)].map(([name, value]) => [name, String(value).trim()]);
  const hash = fragment(form.dataset.go ?? "", Object.fromEntries(fields));
  if (hash === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}

/** Sends a form, and shows the answer beside its button. @param {HTMLFormElement} form @param {Server} server @param {Action} action */
async function send(form, server, action) {
  const button = /** @type {HTMLButtonElement} */ (form.querySelector("button"));
  const answer = /** @type {HTMLOutputElement} */ (form.querySelector("output"));
  button.ariaDisabled = "true"; // `disabled` would take the focus away
  answer.textContent = "";
  try {
    answer.textContent = await action(server, new FormData(form));
    answer.dataset.level = "good";
  } catch (error) {
    answer.textContent = error instanceof Failure ? sentence(error.message) : String(error);
    answer.dataset.level = "bad";
  }
  button.ariaDisabled = null;
}
