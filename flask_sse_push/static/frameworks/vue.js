// @ts-check
/**
 * `usePush` keeps a stream open as long as a component, or another effect scope, lives.
 * @import { Ref, ShallowRef } from "vue"
 * @import { Message, State } from "../push-client.js"
 */

import { onScopeDispose, ref, shallowRef, toValue, watch } from "vue";
import { PushClient } from "../push-client.js";

/** @type {typeof import("./vue.js").usePush} */
export function usePush(url, handlers = {}, options = {}) {
  /** @type {Ref<State>} */
  const state = ref("connecting");
  /** @type {ShallowRef<Message | null>} */
  const last = shallowRef(null);
  /** @type {ShallowRef<PushClient | null>} */
  const client = shallowRef(null);

  const close = () => {
    client.value?.close();
    client.value = null;
  };
  const open = (/** @type {string | null} */ address) => {
    close();
    if (address === null) return;
    const opened = new PushClient(address, options);
    opened.addEventListener("statechange", ({ detail }) => (state.value = detail.state));
    for (const [type, handler] of Object.entries(handlers)) {
      opened.on(type, (message) => {
        last.value = message;
        handler(message);
      });
    }
    state.value = opened.state;
    client.value = opened;
  };

  const address = () => {
    const value = toValue(url);
    return value === null ? null : String(value);
  };
  watch(address, open, { immediate: true, flush: "sync" });
  onScopeDispose(close);
  return { state, last, client, close };
}
