/** `usePush`: a stream for as long as a component, or another effect scope, lives. */

import { onScopeDispose, ref, shallowRef, toValue, watch } from "vue";
import { PushClient } from "../push-client.js";

export function usePush(url, handlers = {}, options = {}) {
  const state = ref("connecting");
  const last = shallowRef(null);
  const client = shallowRef(null);

  const close = () => {
    client.value?.close();
    client.value = null;
  };
  const open = (address) => {
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
