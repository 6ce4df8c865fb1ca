/** A page with the hook, in strict mode. `opened` has the channels of the streams that have begun. */

import { createElement as h, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { usePush } from "../../../flask_sse_push/static/frameworks/react.js";

window.received = [];
window.opened = [];

function Prices({ channel }) {
  const [count, setCount] = useState(0);
  const { state, last } = usePush(`/stream?channels=${channel}`, {
    "sse.open": ({ data }) => window.opened.push(...data.channels),
    price: ({ data }) => {
      window.received.push([channel, data, count]); // the current count: the stream calls the newest handlers
      setCount(count + 1);
    },
  });
  return h("p", { id: "shown" }, `${channel} ${state} ${count} ${last ? JSON.stringify(last.data) : "-"}`);
}

const root = createRoot(document.body.appendChild(document.createElement("main")));
window.mount = (channel) => root.render(h(StrictMode, null, h(Prices, { channel })));
window.unmount = () => root.render(null);
