/** How PushClient and a source work together: a source reads one connection and reports to a sink. */

import type { Inbox } from "../inbox.js";
import type { Handler, Message, Options, PushClient, ServerError, State, Stats } from "../push-client.js";

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
  /** Whether the server marks JSON (see `Connection`). Only another tab says so. */
  marks?: boolean;
}

/** Why a connection ended. */
export interface Ending {
  reason?: string;
  /** The HTTP status of a refusal. */
  status?: number;
  /** The body of the server's own refusals, else the error that was thrown. */
  error?: ServerError | Error;
  /** Milliseconds that the client must wait before it reconnects, if the server says so. */
  retryAfter?: number;
}

/** A server's answer that is not an event stream. */
export interface Refusal {
  reason: "refused";
  status: number;
  error?: ServerError;
  retryAfter?: number;
}

/** What a source calls. PushClient ignores the calls of a source it has closed. */
export interface Sink {
  event(event: RawEvent): void;
  /** The connection failed, or could not be opened. */
  fail(ending: Ending): void;
  /** The server sent a `retry:` field. */
  retry(ms: number): void;
  /** Only a source that reconnects by itself calls this. */
  state(state: State, detail?: Ending): void;
  /** A message whose payload has been unpacked; for the inbox. */
  deliver(message: PackedMessage): void;
}

/** A message on its way to the handlers. */
export interface PackedMessage extends Message {
  /** Why the payload could not be unpacked. */
  broken?: Error;
}

/** The app's options, and the handlers by event type. */
export interface SourceOptions extends Options {
  types: ReadonlyMap<string, unknown>;
}

/** One connection. */
export interface Source {
  close(): void;
  /** Starts to listen to one more type; only EventSource must know the types. */
  listen?(type: string): void;
  /** Changes the channels; false means that the source cannot. */
  change?(channels: Set<string>): boolean;
}

export interface SourceModule {
  Source: new (url: string, options: SourceOptions, sink: Sink) => Source;
}

/** What `sse.open` carries. */
export interface Opening {
  connection: string;
  channels: string[];
  resumed: boolean;
  heartbeat: number;
  /** Proves to the server that a channel change comes from the owner of the stream. */
  secret?: string;
}

/** What `sse.close` carries. */
export interface Closing {
  reason: string;
  reconnect: boolean;
  /** Milliseconds to wait. The server gives each client a different number, so that they do not return together. */
  retry?: number;
}

export type Counters = Omit<Stats, "state">;

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
