/** `usePush`: a stream for as long as a component is mounted. */

import { useEffect, useInsertionEffect, useRef, useState } from "react";
import { PushClient } from "../push-client.js";

export function usePush(url, handlers = {}, options = {}) {
  const [client, setClient] = useState(null);
  const [state, setState] = useState("connecting");
  const [last, setLast] = useState(null);
  // The handlers of the last rendering: new ones do not open the stream anew.
  const current = useRef(handlers);
  const heard = useRef(new Set());
  const types = Object.keys(handlers).sort().join("\n");
  const asked = url === null ? null : JSON.stringify([String(url), options]);

  // With the page's change, not some time after: an event in between would meet the handlers of before.
  useInsertionEffect(() => {
    current.current = handlers;
  });

  useEffect(() => {
    if (url === null) return undefined;
    const opened = new PushClient(url, options);
    opened.addEventListener("statechange", ({ detail }) => setState(detail.state));
    heard.current = new Set();
    listen(opened);
    setClient(opened);
    setState(opened.state);
    // Strict mode mounts twice: the first stream is closed before it has connected.
    return () => {
      opened.close();
      setClient(null);
    };
  }, [asked]);

  useEffect(() => {
    if (client) listen(client);
  }, [types]);

  /** From the beginning, so that no event is missed; a type that has lost its handler is passed over. */
  function listen(to) {
    for (const type of Object.keys(handlers)) {
      if (heard.current.has(type)) continue;
      heard.current.add(type);
      to.on(type, (message) => {
        const handler = current.current[type];
        if (!handler) return;
        setLast(message);
        handler(message);
      });
    }
  }

  return { state, last, client };
}
