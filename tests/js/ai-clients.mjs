/**
 * Reads runs with AG-UI's HttpAgent and with the openai package. For each question, the first reader starts the run and
 * reads it whole. If the question is `60 words`, a second reader resumes the run when the first one has some text.
 * Prints what they have in the end as a line of JSON.
 */

import { HttpAgent } from "@ag-ui/client";
import OpenAI from "openai";

const [, , url] = process.argv;
const questions = ["60 words", "tools", "fail"];

/** Runs an agent to its end, and returns what it has. */
async function agent(threadId, options, onText = () => {}) {
  const agent = new HttpAgent({ url: `${url}/ag-ui`, threadId, ...options });
  const found = { types: [], custom: [] };
  const subscriber = {
    onEvent: ({ event }) => void found.types.push(event.type),
    onTextMessageContentEvent: () => void onText(),
    onRunErrorEvent: ({ event }) => void (found.error = event.message),
    onCustomEvent: ({ event }) => void found.custom.push([event.name, event.value]),
    onRunFinishedEvent: ({ outcome }) => void (found.outcome = outcome),
  };
  const { newMessages } = await agent.runAgent({}, subscriber).catch((thrown) => ((found.thrown = thrown.message), {}));
  return { ...found, messages: newMessages };
}

async function agUi(question) {
  const thread = `ag-ui-${question.replace(" ", "-")}`;
  const fetchRest = (address, { signal }) => fetch(`${address}/${thread}`, { signal });
  let resumed;
  const whole = await agent(thread, { initialMessages: [{ id: "q", role: "user", content: question }] }, () => {
    if (question === "60 words") resumed ??= agent(thread, { fetch: fetchRest });
  });
  return { whole, resumed: await resumed };
}

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

/** Reads a stream of chunks to its end, and returns what it has. */
async function chunks(opening, onText = () => {}) {
  const found = { text: "", ends: [], calls: [] };
  try {
    for await (const { choices } of await opening) {
      for (const { delta, finish_reason: end } of choices) {
        if (delta.content) onText();
        found.text += delta.content ?? "";
        found.calls.push(...(delta.tool_calls ?? []));
        if (end) found.ends.push(end);
      }
    }
  } catch (error) {
    found.error = error.message;
  }
  return found;
}

async function openai(question) {
  const user = `node-${question.replace(" ", "-")}`;
  const body = { model: "any", user, stream: true, messages: [{ role: "user", content: question }] };
  let resumed;
  const whole = await chunks(client.chat.completions.create(body), () => {
    if (question === "60 words") resumed ??= chunks(client.get(`/chat/completions/${user}`, { stream: true }));
  });
  return { whole, resumed: await resumed };
}

const found = { agUi: {}, openai: {} };
await Promise.all(
  questions.flatMap((question) => [
    agUi(question).then((result) => (found.agUi[question] = result)),
    openai(question).then((result) => (found.openai[question] = result)),
  ]),
);
console.log(JSON.stringify(found));
