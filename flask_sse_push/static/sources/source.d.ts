/** How PushClient and a source work together: a source reads one connection and reports to a sink. */

import type { Inbox } from "../inbox.js";
import type { ChannelChanges } from "../tabs/channel-changes.js";
import type { Failure, Handler, Message, Options, PushClient, ServerError, State, Stats } from "../push-client.js";

export type { Handler, Inbox, Message, Options, PushClient, State };

/** An event as it arrived; its data is not parsed yet. */
export interface RawEvent {
  /** Left out in batches for untyped events. */
  type?: string;
  data: string;
  /** The cursor; left out in batches for events that carry none. */
  id?: string;
  /** The event's channels, on streams that ask for them. */
  channels?: string[];
  /** Whether the server marks JSON (see `Connection`). Set only for events of a shared connection. */
  marks?: boolean;
  /**
   * Why the handlers do not get the event; its id still counts. If there is a reason, listeners for errors get it.
   * False if the source has checked the size of the event, and the handlers get the event.
   */
  skipped?: Skipped | false;
}

/** Why an event is not given to the handlers. Empty for an event without data. */
export interface Skipped {
  reason?: Failure["reason"];
  size?: number;
  error?: Failure["error"];
}

/** Why a connection ended. */
export interface Ending {
  reason?: string;
  /** The HTTP status of a refusal. */
  status?: number;
  /** The body of the server's own refusals, else the error that was thrown. */
  error?: any;
  /** Milliseconds that the client must wait before it reconnects, if the server says so. */
  retryAfter?: number;
  url?: string;
  redirected?: boolean;
  contentType?: string;
  /** The data of `sse.close`, if the server ended the connection with it. */
  closing?: Closing;
  /** Whether new credentials would not help: the shared connection has already tried them. */
  final?: boolean;
}

/** A server's answer that is not an event stream. */
export interface Refusal {
  reason: "refused";
  status: number;
  url: string;
  redirected: boolean;
  contentType: string;
  error?: ServerError;
  retryAfter?: number;
}

/** What a source calls. PushClient ignores the calls of a source it has closed. */
export interface Sink {
  /** The types that have handlers, or that the client itself needs. */
  types: ReadonlyMap<string, unknown>;
  /** The source sets `retry` when the server sends this field. */
  trouble: Trouble;
  event(event: RawEvent): void;
  /** The connection failed, or could not be opened. */
  fail(ending: Ending): void;
  /** Only a source that reconnects by itself calls this. */
  waiting(detail: Ending): void;
  /** A message whose payload has been unpacked; for the inbox. Returns false if the connection has ended. */
  deliver(message: PackedMessage): unknown;
}

/** The app's options, and `page`: whether the client follows the state of the page. A shared connection does not. */
export interface InnerOptions extends Options {
  page?: boolean;
}

/** A message on its way to the handlers. */
export interface PackedMessage extends Message {
  /** Undefined if the event has no id: the message then gets the id of the event before it. */
  lastEventId: any;
  skipped?: Skipped | false;
}

/** One connection. */
export interface Source {
  close(): void;
  /** Starts to listen to one more type; only EventSource must know the types. */
  listen?(type: string): void;
}

export interface SourceModule {
  Source: new (url: string, options: Options, sink: Sink) => Source;
}

/** What `sse.open` carries. */
export interface Opening {
  connection: string;
  channels: string[];
  resumed: boolean;
  heartbeat: number;
  /** Milliseconds that clients wait before they reconnect; left out by older servers. */
  retry?: number;
  /** Proves to the server that a channel change comes from the owner of the stream. */
  secret?: string;
  /** Whether the client opens short streams, so that the server cannot change the channels of this one. */
  poll?: boolean;
}

/** What `sse.close` carries. */
export interface Closing {
  reason: string;
  reconnect: boolean;
  /** Milliseconds to wait. The server gives each client a different number, so that they do not return together. */
  retry?: number;
}

export type Counters = Omit<Stats, "state">;

/** What PushClient remembers from one connection to the next. */
export interface Trouble {
  /** Failures in a row. */
  failures: number;
  /** Whether the client opens short streams instead of one that stays open. Undefined until this is known. */
  poll?: boolean;
  /** Connections in a row that brought nothing. */
  silences?: number;
  /** When a stream was last tried while the client opens short streams, and how long it waits: in milliseconds. */
  tried?: { at: number; wait: number };
  /** Whether the next request must be made by fetch: EventSource was refused, and does not say why. */
  askWhy?: boolean;
  /** Whether the client has called the app's function for new credentials after the last refusal. */
  renewed?: boolean;
  /** Whether the last token expired soon after the stream was opened. */
  hurried?: boolean;
  /** Changes the channels of a client whose tab may share a connection. Left out for other clients. */
  changes?: ChannelChanges;
  change?: ChannelChanges["change"];
  /** Milliseconds from the server's `retry`: the limit of the random delay is at least as long. */
  retry?: number;
}

export type StateDetail = Omit<Ending, "closing" | "final"> & { delay?: number };

/** What PushClient does after a connection has ended: it connects at once, waits for `detail.delay`, or closes. */
export interface Step {
  state: "connecting" | "waiting" | "closed";
  detail?: StateDetail;
  /** Whether listeners for errors get `detail`. */
  error?: boolean;
}

export type Loop = AsyncGenerator<Message, void, void>;

/** PushClient's current connection. */
export interface Connection {
  /** Left out while there is no connection. */
  sink?: Sink;
  /** Left out until the source's module is loaded. */
  source?: Source;
  /** Left out until a batch or a compressed event arrives. */
  inbox?: Promise<Inbox>;
  /** Whether the server marks the data that it wrote as JSON. Left out until it is known. */
  marks?: boolean;
  /** When the stream was opened, in milliseconds since 1970. */
  openedAt?: number;
}
