/** A page with the composable. */

import { createApp, h, ref, shallowRef } from "vue";
import { usePush } from "../../../flask_sse_push/static/frameworks/vue.js";

window.received = [];
window.opened = [];
const channel = ref("");
const shown = shallowRef(false);

const Prices = {
  setup() {
    const count = ref(0);
    const hear = ({ data }) => {
      window.received.push([channel.value, data, count.value]);
      count.value += 1;
    };
    const { state, last } = usePush(() => `/stream?channels=${channel.value}`, {
      "sse.open": ({ data }) => window.opened.push(...data.channels),
      price: hear,
    });
    return () => h("p", { id: "shown" }, `${channel.value} ${state.value} ${count.value} ${JSON.stringify(last.value?.data) ?? "-"}`);
  },
};

createApp({ render: () => (shown.value ? h(Prices) : null) }).mount(
  document.body.appendChild(document.createElement("main")),
);
window.mount = (name) => {
  channel.value = name;
  shown.value = true;
};
window.unmount = () => {
  shown.value = false;
};
