import type { Handler, Message, Options, PushClient, State, Stats } from "../push-client.js";

export interface Push {
  state: State;
  /** The newest message that a handler got; null before the first. */
  last: Message | null;
  /** Null while nothing is mounted. */
  client: PushClient | null;
}

/**
 * A stream for as long as the component is mounted; `null` as the address means none.
 *
 * @param handlers By event type. They may be new functions at each rendering; the stream stays open.
 * @param options A change of the address or of the options opens another stream.
 */
export function usePush(url: string | URL | null, handlers?: Record<string, Handler>, options?: Options): Push;

export type { Handler, Message, Options, PushClient, State, Stats };
