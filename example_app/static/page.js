// @ts-check
/**
 * Shared by the scripts of all pages: the stream, requests to the app, and elements made of texts.
 * @import { Message, PushClient } from "../../flask_sse_push/static/push-client.js"
 */

import { reloadWhenSignedOut, showState } from "./stream-state.js";

const page = /** @type {HTMLElement} */ (document.querySelector("main"));

/**
 * Returns an element of the page; each script knows the kinds of its own.
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/**
 * Opens the page's stream and shows its state.
 * @param {Record<string, (message: Message) => void>} handlers By event type.
 * @param {{ tell?: (text: string) => void, [option: string]: unknown }} [options] PushClient's options, and `tell`,
 *   which gets a sentence for each thing that happens to the stream.
 * @returns {Promise<PushClient>}
 */
export async function openStream(handlers, { tell = () => {}, ...options } = {}) {
  const { PushClient } = await import(page.dataset.client ?? "");
  const client = new PushClient(page.dataset.stream, options);
  showState(client, byId("state"), tell);
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
 * @param {string} url @param {object} body @param {(answer: any) => void} use Gets the answer when there is no error.
 * @returns {Promise<string | null>} What went wrong; null when nothing did.
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

/**
 * Makes an element with a class and a text. The text is never read as markup.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {string} name @param {string} text
 */
export function piece(tag, name = "", text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** Makes an element with the time of day. @param {Date} time */
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
