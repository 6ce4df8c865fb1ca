/** What the scripts of all pages share: the stream, asking the app, and making elements of texts. */

import { reloadWhenSignedOut, showState } from "./stream-state.js";

const page = document.querySelector("main");

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/**
 * Opens the page's stream and keeps its state shown.
 * @param {Record<string, (message: {type: string, data: any, lastEventId: string}) => void>} handlers By type.
 * @param {object} [options] PushClient's, and `tell`, which gets a sentence for each thing the stream did.
 */
export async function openStream(handlers, { tell = () => {}, ...options } = {}) {
  const { PushClient } = await import(page.dataset.client);
  const client = new PushClient(page.dataset.stream, options);
  showState(client, byId("state"), tell);
  reloadWhenSignedOut(client, page.dataset.whoami);
  client.once("sse.open", () => performance.mark("stream-open"));
  for (const [type, handler] of Object.entries(handlers)) {
    client.once(type, () => performance.mark("first-event")); // seen in the browser's performance panel
    client.on(type, handler);
  }
  return client;
}

/** Sends JSON to the app. Returns what went wrong, or null; `told` gets the answer when nothing did. */
export async function post(url, body = {}, told = () => {}) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const said = await answer.json();
    if (!answer.ok) return said.error;
    told(said);
    return null;
  } catch {
    return "The server did not answer; try again.";
  }
}

/** A new element with a class and a text, which is never taken for markup. */
export function piece(tag, name, text = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  return element;
}

/** A moment as the time of day. @param {Date} moment */
export function clock(moment) {
  const element = piece("time", "", moment.toLocaleTimeString([], { hour12: false }));
  element.dateTime = moment.toISOString();
  return element;
}

/** Puts an item on top of a list, and takes old ones off its end. */
export function putOnTop(list, item, most) {
  list.prepend(item);
  while (list.children.length > most) list.lastElementChild.remove();
}
