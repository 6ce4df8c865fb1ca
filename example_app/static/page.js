// @ts-check
/**
 * Shared by the scripts of all pages: opens the stream, sends requests to the app, and makes elements.
 * @import { Message, PushClient } from "../../flask_sse_push/static/push-client.js"
 */

import { reloadWhenSignedOut, showState } from "./stream-state.js";

const page = /** @type {HTMLElement} */ (document.querySelector("main"));

/**
 * Returns an element of the page. Its type is `any`, because each script knows which element it gets.
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/**
 * Opens the page's stream, shows its state, and reports how the connections went.
 * @param {Record<string, (message: Message) => void>} handlers By event type.
 * @param {{ log?: (text: string) => void, [option: string]: unknown }} [options] PushClient's options, and `log`, a
 *   function that gets a text each time the state of the stream changes.
 * @returns {Promise<PushClient>}
 */
export async function openStream(handlers, { log = () => {}, ...options } = {}) {
  const { client: clientModule = "", reportModule = "" } = page.dataset;
  const [{ PushClient }, { report }] = await Promise.all([import(clientModule), import(reportModule)]);
  const client = new PushClient(page.dataset.stream, options);
  report(client, page.dataset.report ?? ""); // counts and times for the server's metrics
  showState(client, byId("state"), log);
  reloadWhenSignedOut(client, page.dataset.whoami ?? "");
  client.once("sse.open", () => performance.mark("stream-open"));
  for (const [type, handler] of Object.entries(handlers)) {
    client.once(type, () => performance.mark("first-event")); // the browser's performance panel shows it
    client.on(type, handler);
  }
  return client;
}

/**
 * Sends JSON to the app.
 * @param {string} url @param {object} body @param {(answer: any) => void} use Gets the answer if there is no error.
 * @returns {Promise<string | null>} The text of the error; null if there is none.
 */
export async function post(url, body = {}, use = () => {}) {
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    if (!response.ok) return answer.error;
    use(answer);
    return null;
  } catch {
    return "The server did not answer; try again.";
  }
}

/** Resolves when the app has answered the newest `send`. */
let answered = Promise.resolve(/** @type {string | null} */ (null));

/**
 * Sends the user's actions to the app, one after another: each waits for the answer to the one before. So the element
 * #problem always shows the error of the newest answer. Takes and returns what `post` does.
 * @param {string} url @param {object} [body] @param {(answer: any) => void} [use]
 */
export function send(url, body, use) {
  answered = answered.then(async () => {
    const error = await post(url, body, use);
    byId("problem").textContent = error ?? "";
    return error;
  });
  return answered;
}

/**
 * Makes an element with a class and a text. The browser shows the text as it is, never as markup.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} name @param {string} text
 */
export function piece(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** Makes an element that shows the time of day. @param {Date} time */
export function clock(time) {
  const element = piece("time", "", time.toLocaleTimeString([], { hour12: false }));
  element.dateTime = time.toISOString();
  return element;
}

/**
 * Puts an item on top of a list and removes the oldest items over `most`.
 * @param {Element} list @param {Element} item @param {number} most
 */
export function putOnTop(list, item, most) {
  list.prepend(item);
  while (list.children.length > most) list.lastElementChild?.remove();
}
