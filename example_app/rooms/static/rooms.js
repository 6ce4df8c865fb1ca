/** The page "Rooms": one stream, to which rooms are added and from which they are taken. */

import { byId, clock, openStream, piece, post } from "../../static/page.js";

/** Messages a room shows. */
const SHOWN = 100;
/** Where a tab keeps which rooms it is in: a reload goes back to them. */
const KEPT = "rooms";
/** Types of events in a room. */
const TOLD = ["said", "sse.presence"];

const { people, me, enter, who } = byId("rooms").dataset;
const names = JSON.parse(people);

class Room {
  wanted = false;
  inside = false; // the stream has the room
  #card;
  name;
  #users = new Set();
  #moves = new Map(); // who came or went since the list was asked for, which may be older

  constructor(card) {
    this.#card = card;
    this.name = card.dataset.room;
    this.#find(".door").addEventListener("click", () => this.#go());
    this.#find(".say").addEventListener("submit", (submit) => this.#say(submit));
  }

  get channel() {
    return `room:${this.name}`;
  }

  #find(selector) {
    return this.#card.querySelector(selector);
  }

  #go() {
    if (this.wanted !== this.inside) return; // on its way
    if (this.inside) this.leave();
    else this.enter();
  }

  async enter() {
    this.wanted = true;
    this.draw();
    const told = ({ users }) => this.#list(users);
    const problem = await post(enter, { room: this.name, connection }, told);
    this.#complain(problem);
    if (problem) this.wanted = this.inside;
    this.draw();
  }

  /** The stream has the room now. */
  async entered() {
    this.inside = true;
    this.draw();
    if (this.#find(".said").lastElementChild?.dataset.cursor) this.#mark("You came in.");
    // It has the room already; now it asks for it, too, when it must connect anew.
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

  /** The stream does not have the room any more. */
  left() {
    this.inside = false;
    this.#moves.clear();
    this.#users.clear();
    this.draw();
  }

  hear({ type, data, lastEventId }) {
    if (type === "sse.presence") this.#move(data);
    if (type === "said") this.#show(data, lastEventId);
  }

  /** Events from before it came in, without those that this stream had when it was in before. */
  catchUp(events) {
    for (const { type, data, id } of events)
      if (TOLD.includes(type)) this.hear({ type, data: JSON.parse(data), lastEventId: id });
  }

  lost() {
    this.#mark("Some messages were lost here.");
    this.#askWho();
  }

  // -- who is here

  #list(users) {
    this.#users = new Set(users);
    for (const [user, here] of this.#moves) this.#put(user, here);
    this.#tellWho();
  }

  #move({ join, leave }) {
    for (const user of join) this.#put(user, true);
    for (const user of leave) this.#put(user, false);
    this.#tellWho();
  }

  #put(user, here) {
    this.#moves.set(user, here);
    if (here) this.#users.add(user);
    else this.#users.delete(user);
  }

  #tellWho() {
    const nameOf = (user) => (user === me ? "you" : (names[user] ?? user));
    const text = [...this.#users].sort().map(nameOf).join(", ") || "nobody yet";
    const present = this.#find(".present");
    if (present.textContent !== text) present.textContent = text;
  }

  async #askWho() {
    this.#moves.clear();
    this.#complain(await post(who, { room: this.name }, ({ users }) => this.#list(users)));
  }

  // -- what is said

  #show({ by, text, at }, cursor) {
    const shown = [...this.#find(".said").children].some((item) => item.dataset.cursor === cursor);
    if (shown) return; // a new connection does not know what the one before has had
    const item = piece("li");
    item.dataset.cursor = cursor;
    item.append(piece("span", "by", by), clock(new Date(at)), piece("p", "text", text));
    this.#add(item);
  }

  #mark(text) {
    this.#add(piece("li", "mark small", text));
  }

  #add(item) {
    const list = this.#find(".said");
    const follows = list.scrollHeight - list.clientHeight - list.scrollTop < 40;
    list.append(item);
    while (list.children.length > SHOWN) list.firstElementChild.remove();
    if (follows) list.scrollTop = list.scrollHeight;
  }

  async #say(submit) {
    submit.preventDefault();
    const { action, elements } = submit.target;
    const message = { room: this.name, text: elements.text.value };
    this.#complain(await post(action, message, () => (elements.text.value = "")));
    elements.text.focus();
  }

  // -- the card

  draw() {
    const door = this.#find(".door");
    door.disabled = !connection;
    door.textContent = this.inside ? "Leave" : "Enter";
    this.#find(".inside").hidden = !this.inside;
    sessionStorage.setItem(KEPT, rooms.filter(({ wanted }) => wanted).map((room) => room.name).join());
  }

  #complain(problem) {
    this.#find(".problem").textContent = problem ?? "";
  }
}

// -- the stream ---------------------------------------------------------------------------------------

let connection = ""; // the stream's id
const rooms = [...document.querySelectorAll("[data-room]")].map((card) => new Room(card));
const of = (channel) => rooms.find((room) => room.channel === channel);

const kept = (sessionStorage.getItem(KEPT) ?? "").split(",");
for (const room of rooms) room.wanted = kept.includes(room.name);

/** Takes note of the channels that the stream has now. */
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
  "sse.reset": ({ data: { channels } }) => channels.forEach((channel) => of(channel)?.lost()),
  "sse.presence": (event) => of(event.data.channel)?.hear(event),
  said: (event) => of(`room:${event.data.room}`)?.hear(event),
});
