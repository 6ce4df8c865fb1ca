/** The page "AI chat". The conversation is read from the stream alone: what comes in is put in as text. */

import { byId, openStream, piece, post } from "../../static/page.js";

const [talk, form, stop, problem] = ["talk", "ask", "stop", "problem"].map(byId);

const SHOWN = 200;
const ENDS = { stopped: "Stopped.", failed: "The answer broke off:" };

let answer = null;

/** Adds an item to the conversation. */
function say(by, text) {
  const item = piece("li", "", text);
  item.dataset.by = by;
  talk.append(item);
  while (talk.children.length > SHOWN) talk.firstElementChild.remove();
  return item;
}

/** Keeps the newest words in sight of who has not scrolled away from them. */
function follow(change) {
  const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
  change();
  if (scrollHeight - clientHeight - scrollTop < 80) scrollTo(0, document.documentElement.scrollHeight);
}

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
        answer ??= say("answer", "…"); // its beginning is not kept any more
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

function end({ status, error }) {
  running(false);
  if (!answer) return;
  answer.dataset.status = status;
  if (ENDS[status]) answer.append(piece("span", "end", [ENDS[status], error].filter(Boolean).join(" ")));
  answer = null;
}

// -- the form -----------------------------------------------------------------------------------------

form.addEventListener("submit", async (submit) => {
  submit.preventDefault();
  problem.textContent = (await post(form.action, Object.fromEntries(new FormData(form)))) ?? "";
  if (!problem.textContent) form.reset();
  form.elements.question.focus();
});

stop.addEventListener("click", async () => {
  problem.textContent = (await post(stop.dataset.url)) ?? "";
});
