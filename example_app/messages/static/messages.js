// @ts-check
/**
 * The page "Messages": shows the events of the user's own channel, from the earliest on, as conversations.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, clock, openStream, piece, post, send } from "../../static/page.js";

/** Maximum number of messages in the page, over all conversations. */
const SHOWN = 300;
/** The page reports received messages after this many milliseconds without a new one, and this many in one report. */
const QUIET = 150;
const AT_ONCE = 50;

const [list, form] = ["letters", "send"].map(byId);
const people = [...byId("people").children];
const { me, received } = list.dataset;

let other = people[0]?.dataset.user; // the user whose conversation is shown

// -- the messages --------------------------------------------------------------------------------------

const letters = new Map(); // items by the id of the message

/** @param {Message} message */
function take({ data: { id, from, to, text, at } }) {
  if (letters.has(id)) return; // the writer's page got no answer and sent the message again
  const own = from === me;
  const item = piece("li", own ? "own" : "");
  item.dataset.with = own ? to : from;
  const foot = piece("span", "foot small");
  foot.append(clock(new Date(at)), own ? piece("span", "mark", "Sent") : "");
  item.append(piece("p", "text", text), foot);
  letters.set(id, item);
  add(item);
  if (!own) owe(id, from);
}

/** @param {HTMLElement} item */
function add(item) {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  const follows = scrollHeight - clientHeight - scrollTop < 120;
  list.append(item);
  const [oldest] = letters.keys();
  if (letters.size > SHOWN) {
    letters.get(oldest).remove();
    letters.delete(oldest);
  }
  tidy();
  if (follows) scrollTo(0, document.documentElement.scrollHeight);
}

/** @param {Message} message */
function markDelivered({ data: { id, by } }) {
  owed.delete(id);
  const mark = letters.get(id)?.querySelector(".mark");
  if (!mark || letters.get(id).dataset.with !== by) return;
  mark.textContent = "Delivered";
  mark.toggleAttribute("data-done", true);
}

// -- delivery reports ----------------------------------------------------------------------------------

/**
 * The writers of messages that this page has not reported yet, by the id of the message. After a reload, the stream
 * replays each message before its report.
 */
const owed = new Map();
let timer = 0;

/** @param {string} id @param {string} from */
function owe(id, from) {
  owed.set(id, from);
  report();
}

function report() {
  clearTimeout(timer);
  if (owed.size) timer = setTimeout(tellNext, QUIET);
}

async function tellNext() {
  const [from] = owed.values();
  if (!from) return;
  const ids = [...owed].filter(([, writer]) => writer === from).map(([id]) => id).slice(0, AT_ONCE);
  const problem = await post(received, { from, ids });
  if (problem) return; // the page tries again at the next `sse.open`
  for (const id of ids) owed.delete(id);
  report();
}

// -- conversations -------------------------------------------------------------------------------------

function tidy() {
  for (const item of letters.values()) item.hidden = item.dataset.with !== other;
  for (const person of people) person.setAttribute("aria-pressed", person.dataset.user === other);
  byId("nothing").hidden = list.querySelector("li:not([hidden])") !== null;
}

for (const person of people) {
  person.addEventListener("click", () => {
    other = person.dataset.user;
    tidy();
  });
}

await openStream(
  {
    letter: take,
    delivered: markDelivered,
    "sse.open": report,
    "sse.reset": () => list.append(piece("li", "gap small", "Some messages were lost here.")),
  },
  { lastEventId: "earliest" },
);

// -- the form ------------------------------------------------------------------------------------------

/** Returns 32 hexadecimal digits. */
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

let id = newId();

form.elements.text.addEventListener("input", () => (id = newId())); // a new text is a new message

form.addEventListener("submit", async (/** @type {SubmitEvent} */ submit) => {
  submit.preventDefault();
  const { text } = form.elements;
  await send(form.action, { id, to: other, text: text.value }, () => {
    text.value = "";
    id = newId();
  });
  text.focus();
});
