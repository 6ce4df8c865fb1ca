// @ts-check
/**
 * `usePush` keeps a stream open as long as a component is mounted.
 * @import { Message, State } from "../push-client.js"
 */

import { useEffect, useInsertionEffect, useRef, useState } from "react";
import { PushClient } from "../push-client.js";

/** @type {typeof import("./react.js").usePush} */
export function usePush(url, handlers = {}, options = {}) {
  const [client, setClient] = useState(/** @type {PushClient | null} */ (null));
  const [state, setState] = useState(/** @type {State} */ ("connecting"));
  const [last, setLast] = useState(/** @type {Message | null} */ (null));
  // The handlers of the last rendering. When the handlers change, the stream stays open.
  const current = useRef(handlers);
  const listening = useRef(new Set());
  const types = Object.keys(handlers).sort().join("\n");
  const address = url === null ? null : JSON.stringify([String(url), options]);

  // An insertion effect runs together with the change of the page. With a later effect, an event in between would
  // still reach the handlers of the previous rendering.
  useInsertionEffect(() => {
    current.current = handlers;
  });

  useEffect(() => {
    if (url === null) return undefined;
    const opened = new PushClient(url, options);
    opened.addEventListener("statechange", ({ detail }) => setState(detail.state));
    listening.current = new Set();
    listen(opened);
    setClient(opened);
    setState(opened.state);
    // Strict mode mounts twice: the first stream is closed before it has connected.
    return () => {
      opened.close();
      setClient(null);
    };
  }, [address]);

  useEffect(() => {
    if (client) listen(client);
  }, [types]);

  /**
   * Listens once to each type that has handlers. An event whose type has lost its handler is ignored.
   * @param {PushClient} opened
   */
  function listen(opened) {
    for (const type of Object.keys(handlers)) {
      if (listening.current.has(type)) continue;
      listening.current.add(type);
      opened.on(type, (message) => {
        const handler = current.current[type];
        if (!handler) return;
        setLast(message);
        handler(message);
      });
    }
  }

  return { state, last, client };
}
