/** The page "AI chat". The conversation is read from the stream alone: what comes in is put in as text. */

import { reloadWhenSignedOut, showState } from "../../static/stream-state.js";

const page = document.querySelector("main");
const { PushClient } = await import(page.dataset.client);
const [talk, form, stop, problem] = ["talk", "ask", "stop", "problem"].map((id) => document.getElementById(id));

const SHOWN = 200;
const ENDS = { stopped: "Stopped.", failed: "The answer broke off:" };

// -- the stream ---------------------------------------------------------------------------------------

const client = new PushClient(page.dataset.stream, { lastEventId: "earliest" });
showState(client, document.getElementById("state"), () => {});
reloadWhenSignedOut(client, page.dataset.whoami);

let answer = null;

/** Adds an item to the conversation. */
function say(by, text) {
  const item = document.createElement("li");
  item.dataset.by = by;
  item.textContent = text;
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

client.on("question", ({ data }) =>
  follow(() => {
    say("question", data.text);
    answer = say("answer", "");
    answer.dataset.status = "running";
    running(true);
  }),
);

client.on("run.text", ({ data }) =>
  follow(() => {
    answer ??= say("answer", "…"); // its beginning is not kept any more
    answer.append(data.text);
  }),
);

client.on("run.end", ({ data: { status, error } }) =>
  follow(() => {
    running(false);
    if (!answer) return;
    answer.dataset.status = status;
    if (ENDS[status]) {
      const end = document.createElement("span");
      end.className = "end";
      end.textContent = [ENDS[status], error].filter(Boolean).join(" ");
      answer.append(end);
    }
    answer = null;
  }),
);

client.on("sse.reset", () => {
  talk.replaceChildren();
  answer = null;
  running(false);
});

// -- the form -----------------------------------------------------------------------------------------

form.addEventListener("submit", async (submit) => {
  submit.preventDefault();
  problem.textContent = (await post(form.action, Object.fromEntries(new FormData(form)))) ?? "";
  if (!problem.textContent) form.reset();
  form.elements.question.focus();
});

stop.addEventListener("click", async () => {
  problem.textContent = (await post(page.dataset.stop, {})) ?? "";
});

/** Sends JSON to the app; returns what went wrong, or null. */
async function post(url, body) {
  try {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return answer.ok ? null : (await answer.json()).error;
  } catch {
    return "The server did not answer; try again.";
  }
}
