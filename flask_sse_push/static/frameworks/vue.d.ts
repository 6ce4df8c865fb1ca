import type { MaybeRefOrGetter, Ref, ShallowRef } from "vue";
import type { Handler, Message, Options, PushClient, State } from "../push-client.js";

export interface Push {
  state: Readonly<Ref<State>>;
  /** The newest message that a handler got; null before the first. */
  last: Readonly<ShallowRef<Message | null>>;
  client: Readonly<ShallowRef<PushClient | null>>;
  close(): void;
}

/**
 * A stream for as long as the component, or another effect scope, lives. Another address opens another stream;
 * `null` means none.
 */
export function usePush(
  url: MaybeRefOrGetter<string | URL | null>,
  handlers?: Record<string, Handler>,
  options?: Options,
): Push;
