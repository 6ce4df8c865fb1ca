/**
 * A client for Server-Sent Events that reconnects by itself and misses no event.
 *
 *     import { PushClient } from "/stream/client/push-client.js";
 *     const client = new PushClient("/stream?channels=news,user:7");
 *     client.on("price", ({ data }) => show(data));
 *     client.on("sse.reset", ({ data }) => fetchAgain(data.channels));
 *     client.addEventListener("statechange", ({ detail }) => showState(detail.state));
 */

/**
 * "waiting": between two attempts to connect, or while the page needs no connection, for example because it is
 * hidden. "closed": for good.
 */
export type State = "connecting" | "open" | "waiting" | "closed";

/** "stream": one response that stays open. "poll": short responses, one after another, because the network needs it. */
export type Mode = "stream" | "poll";

/** What a handler gets. */
export interface Message<Data = any> {
  /** "message" for events without a type. */
  type: string;
  /**
   * What the app published: text as text, any other value as the value of its JSON. Data of other servers is parsed if
   * it is JSON.
   */
  data: Data;
  /** The text of the data as it came, compressed data unpacked. JSON of the app ends with a TAB. */
  text: string;
  /** The cursor of this event. */
  lastEventId: string;
  /** The channels of this event that the client listens to. Left out if the client cannot share a connection. */
  channels?: string[];
}

export type Handler<Data = any> = (message: Message<Data>) => void;

/** The protocol's own events. */
export interface ProtocolEvents {
  /** `connection` changes when the client reconnects, and when it begins or stops sharing with other tabs. */
  "sse.open": {
    connection: string;
    channels: string[];
    resumed: boolean;
    heartbeat: number;
    /** The broker's clock, in milliseconds since 1970, on a server whose metrics are read. */
    time?: number;
  };
  /** Events of these channels are lost for good. Fetch the state of these channels again. */
  "sse.reset": { channels: string[]; reason: string };
  /** The stream has changed its channels. */
  "sse.channels": { channels: string[]; joined: string[]; left: string[] };
  /** Events that joined channels had before the stream joined; `data` is the `text` of each event. */
  "sse.missed": { channels: string[]; events: { type: string; data: string; id: string }[]; cursor: string };
  /** Users who came into a channel and who left it, and how many are there now. */
  "sse.presence": { channel: string; join: string[]; leave: string[]; count: number };
  "sse.heartbeat": Record<string, never>;
  "sse.close": { reason: string; reconnect: boolean; retry?: number };
  "sse.error": ServerError;
}

/** The body of a refusal, and the data of `sse.error`. */
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
   * "lost": the network failed, or a module could not be loaded. "refused": the server's answer was not a stream.
   * "silent": nothing arrived for 2.5 heartbeats, or no event in `openTimeout`. "overflow": too many events waited. "token", "headers": the function
   * in this option failed. The client also skips single events: "too large": the event was larger than `maxEvent`.
   * "payload": a compressed event or a batch was broken, or an event had more text than `maxInflated`. "request": no
   * browser sends a request with these options, so the client closes.
   */
  reason: "lost" | "refused" | "silent" | "overflow" | "token" | "headers" | "request" | "too large" | "payload";
  /** The HTTP status of a refusal. */
  status?: number;
  /** The address of a refusal; after a redirect, the address of the page to which the server sent the client. */
  url?: string;
  /** Whether the refusal came after a redirect, for example to a login page. */
  redirected?: boolean;
  /** The header `Content-Type` of a refusal, for example "text/html; charset=utf-8"; "" if there was none. */
  contentType?: string;
  /** The body of the server's own refusals, else the error that was thrown. */
  error?: ServerError | Error;
  /** The type of a skipped event. */
  type?: string;
  /** How large a skipped event was: characters of data, or with "payload" how many bytes of text were unpacked. */
  size?: number;
  /** The id of a skipped event. The client continues after it. */
  lastEventId?: string;
  /** The channels of a skipped event. Left out if the client cannot share a connection. */
  channels?: string[];
}

/** The `detail` of a "statechange" event. */
export interface StateChange {
  state: State;
  mode: Mode;
  /**
   * Why the client waits or has closed: a reason of `Failure`, the reason in `sse.close`, "retries" after too many
   * failures, or the state of the page: "offline", "hidden", "left", "frozen". "streaming": the network lets streams
   * through again, so the client changes from short streams to a stream.
   */
  reason?: string;
  /** Milliseconds until the next attempt. */
  delay?: number;
  status?: number;
  url?: string;
  redirected?: boolean;
  contentType?: string;
  error?: ServerError | Error;
}

export interface Stats {
  state: State;
  /** Events since the beginning, including the protocol's own. */
  received: number;
  /** Characters in the data of these events. */
  bytes: number;
  connects: number;
  reconnects: number;
  errors: number;
  lastEvent: { type: string; lastEventId: string; at: string } | null;
}

type OrFunction<Value> = Value | (() => Value | Promise<Value>);

export interface Options {
  /** Channels in addition to those in the address. A string is one channel. */
  channels?: string | Iterable<string>;
  /** The cursor to begin after, for example from `{{ sse.cursor() }}`; "earliest" asks for the whole history. */
  lastEventId?: string;
  /**
   * Keep the cursor in sessionStorage and continue after it when the page is loaded again. Workers and Node have no
   * sessionStorage; there, the option changes nothing. Default: false.
   */
  remember?: boolean;
  /** Send cookies to another origin too. Default: false. */
  withCredentials?: boolean;
  /** Upper bound of the first random delay, in milliseconds. Default: 1000. */
  minDelay?: number;
  /** Upper bound of every random delay, in milliseconds. Default: 30,000. */
  maxDelay?: number;
  /** Failures in a row after which the client closes. Default: Infinity. */
  maxRetries?: number;
  /**
   * Milliseconds that the page may be hidden before the client closes the connection. It connects again when the page
   * is visible. Default: Infinity.
   */
  hiddenAfter?: number;
  /**
   * Whether all tabs share one connection. If this option is a name, only tabs with the same name share, for example
   * those of one user. By default tabs share if the page came over HTTP/1.1 from the stream's origin, and if none of the
   * options `token`, `headers`, `method`, `body`, `transport` and `EventSource` is given.
   */
  tabs?: boolean | string;
  /** Milliseconds for which the server may gather events into one `sse.batch`. Handlers still get single events. */
  batch?: number;
  /**
   * Use fetch instead of EventSource. Without this option, the client uses fetch for what EventSource cannot do:
   * `headers`, `token`, `method`, `body`, and `on("*")`.
   */
  transport?: "fetch";
  /**
   * How events arrive. "auto": by a stream that stays open; if two connections in a row bring nothing in `openTimeout`,
   * by short streams. The client then tries a stream after 1 minute, 2, 4, … 60 minutes, and when the browser gets a
   * network again. "stream" and "poll": only so. Default: "auto".
   */
  mode?: "auto" | Mode;
  /** Milliseconds in which a new connection must bring its first event, `sse.open`. Default: 5000. */
  openTimeout?: number;
  headers?: OrFunction<HeadersInit>;
  /**
   * The token for the header `Authorization: Bearer`. A function is called for each connection, and again when the
   * server says that the token is not valid any more (401, or `sse.close` with the reason "expired"). A second 401 in a
   * row is final.
   */
  token?: OrFunction<string>;
  method?: string;
  /** Objects and arrays are sent as JSON. */
  body?: BodyInit | object;
  /** At most how many characters the data of an event may have. A larger event is skipped. Default: 16,000,000. */
  maxEvent?: number;
  /** At most how many bytes of text a compressed event may have. Default: 10,000,000. */
  maxInflated?: number;
  /** Replaces the browser's EventSource. */
  EventSource?: typeof EventSource;
}

interface ClientEvents {
  statechange: CustomEvent<StateChange>;
  error: CustomEvent<Failure>;
}

/** One stream over any number of successive connections. */
export class PushClient extends EventTarget {
  /** Connects at once. `url` is relative to the page. */
  constructor(url: string | URL, options?: Options);

  readonly state: State;
  readonly mode: Mode;
  /** The cursor of the newest event. A stream that begins after it misses nothing. */
  readonly lastEventId: string;
  readonly channels: string[];
  /** A copy of the counters. */
  readonly stats: Stats;

  /**
   * Calls `handler` for each event of a type. "message" means events without a type, "*" all events. EventSource does
   * not show events whose type has no handler, so "*" makes the client use fetch.
   */
  on<Type extends keyof ProtocolEvents>(type: Type, handler: Handler<ProtocolEvents[Type]>): this;
  on<Data = any>(type: string, handler: Handler<Data>): this;
  off(type: string, handler: Handler): this;
  once<Type extends keyof ProtocolEvents>(type: Type, handler: Handler<ProtocolEvents[Type]>): this;
  once<Data = any>(type: string, handler: Handler<Data>): this;

  /**
   * Events for a `for await` loop, from this call on until the client is closed. A loop that is more than 1000 events
   * behind gets a RangeError.
   */
  events<Data = any>(type?: string): AsyncGenerator<Message<Data>, void, void>;
  [Symbol.asyncIterator](): AsyncGenerator<Message, void, void>;

  /** Listens to more channels: events published to them from now on arrive. */
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
