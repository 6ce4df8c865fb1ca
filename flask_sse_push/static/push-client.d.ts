/**
 * Server-Sent Events that come back by themselves and miss nothing.
 *
 *     import { PushClient } from "/stream/client/push-client.js";
 *     const client = new PushClient("/stream?channels=news,user:7");
 *     client.on("price", ({ data }) => show(data));
 *     client.on("sse.reset", ({ data }) => fetchAgain(data.channels));
 *     client.addEventListener("statechange", ({ detail }) => showState(detail.state));
 */

/** "waiting" is between two attempts, or while the page wants no connection; "closed" is for good. */
export type State = "connecting" | "open" | "waiting" | "closed";

/** What a handler gets. */
export interface Message<Data = any> {
  /** "message" for untyped events. */
  type: string;
  /** Parsed when it is JSON, else the text as it came; unpacked when it came compressed. */
  data: Data;
  /** The cursor of this event. */
  lastEventId: string;
  /** Those of the event's channels that are listened to; with `tabs` only. */
  channels?: string[];
}

export type Handler<Data = any> = (message: Message<Data>) => void;

/** The protocol's own events. */
export interface ProtocolEvents {
  "sse.open": { connection: string; channels: string[]; resumed: boolean; heartbeat: number };
  /** Events of these channels were lost for good: fetch their state anew. */
  "sse.reset": { channels: string[]; reason: string };
  /** The stream has changed its channels. */
  "sse.channels": { channels: string[]; joined: string[]; left: string[] };
  /** What joined channels had before; `data` is text. */
  "sse.missed": { channels: string[]; events: { type: string; data: string; id: string }[]; cursor: string };
  /** Users who came into a channel and went, and how many there are now. */
  "sse.presence": { channel: string; join: string[]; leave: string[]; count: number };
  "sse.heartbeat": Record<string, never>;
  "sse.close": { reason: string; reconnect: boolean; retry?: number };
  "sse.error": ServerError;
}

/** The body of a refusal, and what `sse.error` carries. */
export interface ServerError {
  code: number;
  name: string;
  message: string;
  details: Record<string, unknown>;
  retry: boolean;
  timestamp: string;
}

/** What went wrong: the `detail` of an "error" event. */
export interface Failure {
  /**
   * "lost": the network failed, or a module could not be loaded. "refused": the server answered something else than
   * a stream. "silent": nothing came for 2.5 heartbeats. "too large": an event was bigger than `maxEvent`.
   * "payload": a compressed event was broken or too big; it was left out. "overflow": too many events waited.
   */
  reason: "lost" | "refused" | "silent" | "too large" | "payload" | "overflow";
  /** The HTTP status of a refusal. */
  status?: number;
  /** The body of our own refusals, else what was thrown. */
  error?: ServerError | Error;
  lastEventId?: string;
}

/** The `detail` of a "statechange" event. */
export interface StateChange {
  state: State;
  /**
   * Why it waits or has closed: of `Failure`, what the server gave in `sse.close`, "retries" after too many
   * failures, or what the page is: "offline", "hidden", "left", "frozen".
   */
  reason?: string;
  /** Ms until the next attempt. */
  delay?: number;
  status?: number;
  error?: ServerError | Error;
}

export interface Stats {
  state: State;
  /** Events since the beginning, the protocol's own included. */
  received: number;
  /** Characters of their data. */
  bytes: number;
  connects: number;
  reconnects: number;
  errors: number;
  lastEvent: { type: string; lastEventId: string; at: string } | null;
}

type OrFunction<Value> = Value | (() => Value | Promise<Value>);

export interface Options {
  /** Channels beside those in the address. */
  channels?: Iterable<string>;
  /** The cursor to begin after, say of `{{ sse.cursor() }}`; "earliest" asks for all kept history. */
  lastEventId?: string;
  /** Keep the cursor in sessionStorage, and go on from it after the page was loaded again. Default: false. */
  remember?: boolean;
  /** Send cookies to another origin too. Default: false. */
  withCredentials?: boolean;
  /** Upper bound of the first random delay, in ms. Default: 1000. */
  minDelay?: number;
  /** Upper bound of all random delays, in ms. Default: 30,000. */
  maxDelay?: number;
  /** Failures in a row after which it closes. Default: Infinity. */
  maxRetries?: number;
  /** Ms that the page may be hidden before the connection is closed, until it is seen again. Default: Infinity. */
  hiddenAfter?: number;
  /** Share one connection among all tabs; a name keeps streams of one address apart, say of two users. */
  tabs?: boolean | string;
  /** Ms that the server may gather events for one `sse.batch`; they are handed out one by one all the same. */
  batch?: number;
  /** The fetch transport is taken by itself for what EventSource cannot do: all of these, and `on("*")`. */
  transport?: "fetch";
  headers?: OrFunction<HeadersInit>;
  /** For `Authorization: Bearer`. A function is asked for each connection. */
  token?: OrFunction<string>;
  method?: string;
  /** Objects and arrays go as JSON. */
  body?: BodyInit | object;
  /** Characters one event may have, by the fetch transport. Default: 16,000,000. */
  maxEvent?: number;
  /** Bytes of text that a compressed event may hold. Default: 10,000,000. */
  maxInflated?: number;
  /** What opens the streams in the place of the browser's EventSource. */
  EventSource?: typeof EventSource;
}

interface ClientEvents {
  statechange: CustomEvent<StateChange>;
  error: CustomEvent<Failure>;
}

/** One stream, over as many connections as it takes. */
export class PushClient extends EventTarget {
  /** Connects at once. `url` is relative to the page. */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  /** The cursor of the newest event heard; a stream that begins after it misses nothing. */
  readonly lastEventId: string;
  readonly channels: string[];
  /** A copy of the counters. */
  readonly stats: Stats;

  /**
   * Calls `handler` for each event of a type; "message" stands for untyped events, "*" for all. Over EventSource an
   * event of a type nobody listens to is not seen at all, so "*" changes to the fetch transport.
   */
  on<Type extends keyof ProtocolEvents>(type: Type, handler: Handler<ProtocolEvents[Type]>): this;
  on<Data = any>(type: string, handler: Handler<Data>): this;
  off(type: string, handler: Handler): this;
  once<Type extends keyof ProtocolEvents>(type: Type, handler: Handler<ProtocolEvents[Type]>): this;
  once<Data = any>(type: string, handler: Handler<Data>): this;

  /**
   * Events for a `for await` loop, gathered from this call on, until the client is closed. A loop that is more than
   * 1000 events behind gets a RangeError.
   */
  events<Data = any>(type?: string): AsyncGenerator<Message<Data>, void, void>;
  [Symbol.asyncIterator](): AsyncGenerator<Message, void, void>;

  /** Listens to more channels; what is published to them from now on arrives. */
  join(...channels: string[]): Promise<void>;
  leave(...channels: string[]): Promise<void>;

  /** Ends the stream for good. */
  close(): void;

  addEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: (event: ClientEvents[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}
