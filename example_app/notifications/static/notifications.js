// @ts-check
/**
 * The page "Notifications": builds the list from events, and shows a toast for each new notification.
 * @typedef {{ id: string, level: string, timestamp: string, data: { from: string, text: string } }} Notice
 */

import { byId, clock, openStream, piece, putOnTop, send } from "../../static/page.js";

const [inbox, toasts, unread] = ["inbox", "toasts", "unread"].map(byId);

const MOST = 200;
const MOST_TOASTS = 4;
/** Milliseconds after which a toast of level "info" disappears. */
const STAYS = 6000;

const since = Number(inbox.dataset.now);
const title = document.title;

await openStream(
  {
    notice: ({ data }) => {
      putOnTop(inbox, item(data, ["read", "Mark as read"], ["dismissed", "Dismiss"]), MOST);
      if (Date.parse(data.timestamp) > since) toast(data);
      count();
    },
    "notice.read": ({ data }) => each(data.ids, (element) => delete element.dataset.unread),
    "notice.dismissed": ({ data }) => each(data.ids, (element) => element.remove()),
  },
  { lastEventId: "earliest" },
);

/** Makes an item with a button for each action. @param {Notice} notice @param {[string, string][]} actions */
function item({ id, level, timestamp, data }, ...actions) {
  const element = piece("li", "notice");
  Object.assign(element.dataset, { id, level, unread: "" });
  const badge = piece("span", "badge", level);
  badge.dataset.level = level;
  const buttons = piece("div", "actions");
  for (const [action, label] of actions) {
    const button = piece("button", action, label);
    button.dataset.action = action;
    buttons.append(button);
  }
  const who = piece("span", "small", `from ${data.from}`);
  element.append(badge, who, clock(new Date(timestamp)), piece("p", "text", data.text), buttons);
  return element;
}

/** @param {Notice} notice */
function toast(notice) {
  const element = item(notice, ["read", "Close"]);
  putOnTop(toasts, element, MOST_TOASTS);
  if (notice.level === "info") setTimeout(() => element.remove(), STAYS);
}

/**
 * Changes some notifications in the list, and removes their toasts.
 * @param {string[]} ids @param {(element: any) => void} change
 */
function each(ids, change) {
  for (const element of [...inbox.children]) if (ids.includes(element.dataset.id)) change(element);
  for (const element of [...toasts.children]) if (ids.includes(element.dataset.id)) element.remove();
  count();
}

function unreadIds() {
  return [...inbox.querySelectorAll("[data-unread]")].map((element) => element.dataset.id);
}

function count() {
  const { length } = unreadIds();
  unread.textContent = length;
  unread.dataset.level = length ? "warning" : "info";
  document.title = length ? `(${length}) ${title}` : title;
  byId("read-all").disabled = !length;
  byId("nothing").hidden = Boolean(inbox.dataset.shows === "all" ? inbox.children.length : length);
}

// -- what the user does -------------------------------------------------------------------------------

/** @param {string[]} ids @param {string} as */
const mark = (ids, as) => send(inbox.dataset.mark, { ids, as });

for (const list of [inbox, toasts]) {
  list.addEventListener("click", (/** @type {any} */ { target }) => {
    if (target.dataset.action) mark([target.closest(".notice").dataset.id], target.dataset.action);
  });
}

byId("read-all").addEventListener("click", () => mark(unreadIds(), "read"));

const choices = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("button[data-shows]"));
for (const button of choices) {
  button.addEventListener("click", () => {
    inbox.dataset.shows = button.dataset.shows;
    for (const other of choices) other.setAttribute("aria-pressed", String(other === button));
    count();
  });
}

byId("send").addEventListener("submit", async (/** @type {any} */ submit) => {
  submit.preventDefault();
  const form = submit.target;
  await send(form.action, Object.fromEntries(new FormData(form)), () => (form.elements.text.value = ""));
  form.elements.text.focus();
});
