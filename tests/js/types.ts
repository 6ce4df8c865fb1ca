/** Uses the client rightly and wrongly, as apps may. tsc checks this file; nothing runs it. */

import { inject } from "@angular/core";
import { ref } from "vue";
import { providePush, PushService } from "../../flask_sse_push/static/frameworks/angular.js";
import { decompress, PayloadError } from "../../flask_sse_push/static/payload.js";
import { PushClient, type Failure, type Message, type Options } from "../../flask_sse_push/static/push-client.js";
import { usePush } from "../../flask_sse_push/static/frameworks/react.js";
import { report } from "../../flask_sse_push/static/report.js";
import { usePush as useVuePush } from "../../flask_sse_push/static/frameworks/vue.js";

interface Price {
  symbol: string;
  value: number;
}

const options: Options = {
  channels: new Set(["a"]),
  headers: () => ({ "X-Tenant": "7" }),
  token: async () => "secret",
  tabs: "user-7",
  hiddenAfter: 60_000,
  remember: true,
  batch: 100,
};
const client: PushClient = new PushClient(new URL("https://example.org/stream"), options);

client
  .on<Price>("price", ({ data, lastEventId }) => data.value.toFixed(lastEventId.length))
  .on("sse.reset", ({ data }) => data.channels.map((name) => name.toUpperCase()))
  .once("sse.open", ({ data }) => data.heartbeat + 1)
  .off("price", () => {});
client.addEventListener("statechange", ({ detail }) => (detail.state === "waiting" ? detail.delay : detail.reason));
client.addEventListener("error", ({ detail }: CustomEvent<Failure>) => detail.status);
const stopReporting: () => void = report(client, "/stream/report");
stopReporting();
const joined: Promise<void> = client.join("b", "c");

export async function walk(): Promise<void> {
  for await (const { data } of client.events<Price>("price")) data.symbol.trim();
  for await (const message of client) message.type.trim();
  await joined;
  const unpacked: unknown = await decompress({}, 1000).catch((error: PayloadError) => error.message);
  console.table(client.stats, [typeof unpacked]);
}

// @ts-expect-error: no such state
export const never = client.state === "opened";
// @ts-expect-error: it is read only
client.lastEventId = "x";
// @ts-expect-error: ms are a number
new PushClient("/stream", { minDelay: "1s" });
// @ts-expect-error: a handler is a function
client.on("price", "show");
// @ts-expect-error: resets carry channels, no channel
client.on("sse.reset", ({ data }) => data.channel);

export function Component(): Message | null {
  const { state, last, client: own } = usePush("/stream", { price: ({ data }: Message<Price>) => data.value }, options);
  own?.close();
  return state === "open" ? last : null;
}

export function setup(): string {
  const address = ref("/stream");
  const { state, close } = useVuePush(address, { price: () => close() });
  return state.value;
}

export const providers = [providePush("/stream", options)];
export class Prices {
  prices$ = inject(PushService).on<Price>("price");
}
