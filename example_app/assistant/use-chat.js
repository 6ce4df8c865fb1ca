/**
 * The second page of the AI chat, with AI SDK's useChat. The page's element `#chat` has the chat's id, its address and
 * its stored messages. README.md says how to bundle this module with React and AI SDK.
 */

import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { createElement as h, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const { id, api, messages: stored } = JSON.parse(document.querySelector("#chat").textContent);

/** Shows one part of a message, always as text, never as markup. */
function Part({ part: { type, text, url, title, ...rest } }) {
  if (type === "text") return h("span", { className: "text" }, text);
  if (type === "reasoning") return h("details", null, h("summary", null, "Thoughts"), text);
  if (type === "source-url" && /^https?:/.test(url)) return h("a", { href: url }, title ?? url); // a model wrote it
  if (type === "step-start") return null;
  return h("pre", { "data-type": type }, JSON.stringify(rest));
}

function Chat() {
  const [question, setQuestion] = useState("");
  const { messages, setMessages, sendMessage, resumeStream, stop, status, error } = useChat({
    id,
    messages: stored,
    resume: true,
    transport: new DefaultChatTransport({ api, fetch: fetchOrReload }),
    // The worker that sent the answer has ended. The answer goes on, and another worker sends it.
    onFinish: ({ isDisconnect }) => isDisconnect && setTimeout(resumeStream, 300),
  });

  /** Fetches as usual. 204 means that no answer is under way: one that has just ended is in the stored messages. */
  async function fetchOrReload(url, options) {
    const response = await fetch(url, options);
    if (response.status === 204) {
      const kept = await (await fetch(`${api}/${id}`)).json();
      setMessages((shown) => (shown.length > kept.length ? shown : kept)); // the user may have asked meanwhile
    }
    return response;
  }

  /** useChat's `stop` only stops to read. So the server must end the answer. */
  async function stopAnswer() {
    await fetch(`${api}/${id}/stop`, { method: "POST" });
    await stop();
  }

  function ask(submit) {
    submit.preventDefault();
    sendMessage({ text: question });
    setQuestion("");
  }

  const streams = status === "streaming" && messages.at(-1).parts.some(({ type, text }) => type === "text" && text);
  useEffect(() => {
    if (streams) performance.mark("first-text");
  }, [streams]);

  const busy = status === "submitted" || status === "streaming";
  const items = messages.map(({ id, role, parts }) =>
    h(
      "li",
      { key: id, "data-by": role === "user" ? "question" : "answer" },
      parts.map((part, number) => h(Part, { key: number, part })),
    ),
  );
  const change = ({ target }) => setQuestion(target.value);
  return [
    h("ol", { key: "talk", id: "talk", tabIndex: 0, "aria-label": "Conversation", "aria-live": "polite" }, items),
    h(
      "form",
      { key: "ask", id: "ask", className: "composer", onSubmit: ask, "data-status": status },
      h("label", null, "Question", h("input", { value: question, onChange: change, required: true })),
      h("button", { className: "primary", disabled: busy }, "Ask"),
      h("button", { type: "button", onClick: stopAnswer, disabled: !busy }, "Stop"),
      h("output", { id: "problem", className: "problem", role: "alert" }, error?.message),
    ),
  ];
}

createRoot(document.querySelector("#root")).render(h(Chat));
