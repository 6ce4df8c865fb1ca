// @ts-check
/** The page "AI chat": shows the events of its stream, always as text, never as markup. */

import { byId, openStream, piece, send } from "../../static/page.js";

const [talk, form, stop] = ["talk", "ask", "stop"].map(byId);

const SHOWN = 200;
/** @type {Record<string, string>} */
const ENDS = { stopped: "Stopped.", failed: "The answer broke off:" };

/** @type {HTMLElement | null} */
let answer = null; // the answer that is still arriving

/** Adds an item to the conversation. @param {string} by @param {string} text */
function say(by, text) {
  const item = piece("li", "", text);
  item.dataset.by = by;
  talk.append(item);
  while (talk.children.length > SHOWN) talk.firstElementChild.remove();
  return item;
}

/** Scrolls to the newest words, unless the user has scrolled away from them. @param {() => void} change */
function follow(change) {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  change();
  if (scrollHeight - clientHeight - scrollTop < 80) scrollTo(0, document.documentElement.scrollHeight);
}

/** Enables the buttons for a running or a finished answer. @param {boolean} is */
function running(is) {
  stop.disabled = !is;
  form.querySelector(".primary").disabled = is;
}

await openStream(
  {
    question: ({ data }) =>
      follow(() => {
        say("question", data.text);
        answer = say("answer", "");
        answer.dataset.status = "running";
        running(true);
      }),
    "run.text": ({ data }) =>
      follow(() => {
        answer ??= say("answer", "…"); // the broker no longer keeps the beginning of the answer
        answer.append(data.text);
      }),
    "run.end": ({ data }) => follow(() => end(data)),
    "sse.reset": () => {
      talk.replaceChildren();
      answer = null;
      running(false);
    },
  },
  { lastEventId: "earliest" },
);

/** @param {{ status: string, error?: string }} result */
function end({ status, error }) {
  running(false);
  if (!answer) return;
  answer.dataset.status = status;
  if (ENDS[status]) answer.append(piece("span", "end", [ENDS[status], error].filter(Boolean).join(" ")));
  answer = null;
}

// -- the form -----------------------------------------------------------------------------------------

form.addEventListener("submit", async (/** @type {SubmitEvent} */ submit) => {
  submit.preventDefault();
  await send(form.action, Object.fromEntries(new FormData(form)), () => form.reset());
  form.elements.question.focus();
});

byId("ideas").addEventListener("click", (/** @type {any} */ { target }) => {
  if (!target.matches("button")) return;
  form.elements.question.value = target.textContent;
  form.requestSubmit();
});

stop.addEventListener("click", () => send(stop.dataset.url));
