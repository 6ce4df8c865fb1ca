/** What the tabs of a browser send each other over a BroadcastChannel. */

import type { Ending, RawEvent } from "../sources/source.js";

/** The leader's connection. */
export interface Leader {
  /** The id of the leader's page. */
  page?: string;
  /** Counts the leaders: pages ignore messages of a leader with a lower term. */
  term: number;
  /** Whether its connection is open. */
  open: boolean;
  /** The channels its connection carries. */
  channels: string[];
  /** The cursor of the last event that it passed on, or after which the connection began. */
  cursor: string;
  connection?: string;
  heartbeat?: number;
  resumed?: boolean;
  /** Whether the server marks JSON. */
  marks?: boolean;
  /** Whether it is made of short streams. */
  poll?: boolean;
  /** The secret that pages send to the server to change the channels of the connection. */
  secret?: string;
}

/** The channels that a page listens to. */
export interface Wanted {
  channels: string[];
  /** The cursor after which its streams that do not share yet need the channels; "" if there are none. */
  after: string;
}

/** The server refused the leader's connection; `channel` names the channel it refused, if it was one. */
export interface TabRefusal extends Ending {
  channel?: string;
}

export type TabMessage = { page: string; term: number } & (
  | { kind: "hello" } // a new page: the others send the channels they want, and the leader the channels it carries
  | ({ kind: "wanted" } & Wanted) // the channels that the page listens to
  | { kind: "ask" } // the leader must answer
  | { kind: "here" } // its answer
  | ({ kind: "leader"; page: string; stolen?: boolean } & Leader) // a new leader, or a change of its connection
  | ({ kind: "event" } & RawEvent)
  | { kind: "waiting"; detail: Ending } // the leader's connection is between two attempts
  | { kind: "other user" } // the server says that the leader's connection has another user now
  | { kind: "refused"; refusal: TabRefusal }
);

/** What a page sends; the hub adds `page` and `term`. */
export type Content<Kind extends TabMessage = TabMessage> = Kind extends TabMessage
  ? Omit<Kind, "page" | "term"> & { page?: string; term?: number }
  : never;

/** What changes the channels of one client, whatever connection carries it. */
export interface Carrier {
  readonly channels: Set<string>;
  has(name: string): boolean;
  grant(names: string[]): void;
  drop(names: string[]): boolean;
  reopen(): void;
}

/** A stream of the page that uses the shared connection. */
export interface Member {
  readonly channels: Set<string>;
  readonly cursor: string;
  readonly neededAfter: string;
  /** The leader's connection is open and carries `leader.channels` after `leader.cursor`. */
  onLeader(leader: Leader): void;
  onMessage(event: RawEvent): void;
  onWaiting(detail: Ending): void;
  onRefusal(refusal: TabRefusal): void;
  onOtherUser(): void;
}
