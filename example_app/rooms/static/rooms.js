// @ts-check
/**
 * The page "Rooms": its stream joins and leaves the channels of rooms.
 * @import { Message } from "../../../flask_sse_push/static/push-client.js"
 */

import { byId, clock, openStream, piece, post } from "../../static/page.js";

/** Maximum number of messages that a room shows. */
const SHOWN = 100;
/** Key in sessionStorage with the rooms of this tab. After a reload, the page enters them again. */
const KEPT = "rooms";
/** Types of events in a room. */
const TYPES = ["said", "sse.presence"];

const { people, me, enter, who } = byId("rooms").dataset;
const names = JSON.parse(people);

class Room {
  wanted = false;
  inside = false; // whether the stream has joined the room
  #card;
  name;
  /** @type {Set<string>} */
  #users = new Set();
  #moves = new Map(); // users who came or left since the page requested the list, which may be older

  /** @param {any} card The room's element. */
  constructor(card) {
    this.#card = card;
    this.name = card.dataset.room;
    this.#find(".toggle").addEventListener("click", () => this.#go());
    this.#find(".say").addEventListener("submit", (/** @type {any} */ submit) => this.#say(submit));
  }

  get channel() {
    return `room:${this.name}`;
  }

  /** @param {string} selector */
  #find(selector) {
    return this.#card.querySelector(selector);
  }

  #go() {
    if (this.wanted !== this.inside) return; // the stream is still joining or leaving the room
    if (this.inside) this.leave();
    else this.enter();
  }

  async enter() {
    this.wanted = true;
    this.draw();
    const use = (/** @type {{ users: string[] }} */ { users }) => this.#list(users);
    const problem = await post(enter, { room: this.name, connection }, use);
    this.#complain(problem);
    if (problem) this.wanted = this.inside;
    this.draw();
  }

  /** Called when the stream has joined the room. */
  async entered() {
    this.inside = true;
    this.draw();
    if (this.#find(".said").lastElementChild?.dataset.cursor) this.#mark("You came in.");
    // The app has added the room to the stream. The client must know it too, so that it requests the room again when
    // it reconnects.
    await client.join(this.channel).catch(({ message }) => this.#complain(message));
  }

  async leave() {
    this.wanted = false;
    this.draw();
    const problem = await client.leave(this.channel).catch(({ message }) => message);
    if (!problem) return;
    this.#complain(problem);
    this.wanted = this.inside;
    this.draw();
  }

  /** Called when the stream has left the room. */
  left() {
    this.inside = false;
    this.#moves.clear();
    this.#users.clear();
    this.draw();
  }

  /** @param {Omit<Message, "text">} message */
  handle({ type, data, lastEventId }) {
    if (type === "sse.presence") this.#move(data);
    if (type === "said") this.#show(data, lastEventId);
  }

  /**
   * Shows events from before the stream joined. Skips events from an earlier stay, which the room shows already.
   * @param {{ type: string, data: string, id: string }[]} events
   */
  catchUp(events) {
    for (const { type, data, id } of events)
      if (TYPES.includes(type)) this.handle({ type, data: JSON.parse(data), lastEventId: id });
  }

  lost() {
    this.#mark("Some messages were lost here.");
    this.#askWho();
  }

  // -- the users

  /** @param {string[]} users */
  #list(users) {
    this.#users = new Set(users);
    for (const [user, here] of this.#moves) this.#put(user, here);
    this.#showUsers();
  }

  /** @param {{ join: string[], leave: string[] }} presence */
  #move({ join, leave }) {
    for (const user of join) this.#put(user, true);
    for (const user of leave) this.#put(user, false);
    this.#showUsers();
  }

  /** @param {string} user @param {boolean} here */
  #put(user, here) {
    this.#moves.set(user, here);
    if (here) this.#users.add(user);
    else this.#users.delete(user);
  }

  #showUsers() {
    const nameOf = (/** @type {string} */ user) => (user === me ? "you" : (names[user] ?? user));
    const text = [...this.#users].sort().map(nameOf).join(", ") || "nobody yet";
    const present = this.#find(".present");
    if (present.textContent !== text) present.textContent = text;
  }

  async #askWho() {
    this.#moves.clear();
    this.#complain(await post(who, { room: this.name }, ({ users }) => this.#list(users)));
  }

  // -- the messages

  /** @param {{ by: string, text: string, at: string }} message @param {string} cursor */
  #show({ by, text, at }, cursor) {
    const shown = [...this.#find(".said").children].some((item) => item.dataset.cursor === cursor);
    if (shown) return; // a new connection may replay it
    const item = piece("li");
    item.dataset.cursor = cursor;
    item.append(piece("span", "by", by), clock(new Date(at)), piece("p", "text", text));
    this.#add(item);
  }

  /** @param {string} text */
  #mark(text) {
    this.#add(piece("li", "mark small", text));
  }

  /** @param {HTMLElement} item */
  #add(item) {
    const list = this.#find(".said");
    const follows = list.scrollHeight - list.clientHeight - list.scrollTop < 40;
    list.append(item);
    while (list.children.length > SHOWN) list.firstElementChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  /** @param {any} submit */
  async #say(submit) {
    submit.preventDefault();
    const { action, elements } = submit.target;
    const message = { room: this.name, text: elements.text.value };
    this.#complain(await post(action, message, () => (elements.text.value = "")));
    elements.text.focus();
  }

  // -- the card

  draw() {
    const toggle = this.#find(".toggle");
    toggle.disabled = !connection;
    toggle.textContent = this.inside ? "Leave" : "Enter";
    this.#find(".inside").hidden = !this.inside;
    this.#find(".outside").hidden = this.inside;
    sessionStorage.setItem(KEPT, rooms.filter(({ wanted }) => wanted).map((room) => room.name).join());
  }

  /** @param {string | null} problem */
  #complain(problem) {
    this.#find(".problem").textContent = problem ?? "";
  }
}

// -- the stream ---------------------------------------------------------------------------------------

let connection = ""; // id of the stream
const rooms = [...document.querySelectorAll("[data-room]")].map((card) => new Room(card));
const of = (/** @type {string} */ channel) => rooms.find((room) => room.channel === channel);

const kept = (sessionStorage.getItem(KEPT) ?? "").split(",");
for (const room of rooms) room.wanted = kept.includes(room.name);

/** Updates the rooms to the stream's current channels. @param {string[]} channels */
function settle(channels) {
  for (const room of rooms) {
    const has = channels.includes(room.channel);
    if (has && room.wanted && !room.inside) room.entered();
    if (!has && !room.wanted && room.inside) room.left();
  }
}

const client = await openStream({
  "sse.open": ({ data }) => {
    connection = data.connection;
    settle(data.channels);
    for (const room of rooms) {
      if (room.wanted && !room.inside) room.enter();
      else room.draw();
    }
  },
  "sse.missed": ({ data: { channels, events } }) => of(channels[0])?.catchUp(events),
  "sse.channels": ({ data }) => settle(data.channels),
  "sse.reset": ({ data: { channels } }) => channels.forEach((/** @type {string} */ channel) => of(channel)?.lost()),
  "sse.presence": (event) => of(event.data.channel)?.handle(event),
  said: (event) => of(`room:${event.data.room}`)?.handle(event),
});
