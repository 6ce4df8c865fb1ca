/** The page's own ups and downs: network, visibility, the back-forward cache. */

/** Ms: a longer timer fires at once. */
const LONGEST = 2 ** 31 - 1;

/**
 * @param {object} client `suspend(reason)`, `resume(reason)`, `save()`, and the signal `over` that ends it all.
 * @param {number} hiddenAfter Ms hidden until the stream is closed; Infinity, or more than 24 days: never.
 */
export function followPage(client, hiddenAfter) {
  let timer = 0;
  const on = (target, type, handler) => target.addEventListener(type, handler, { signal: client.over });

  on(window, "offline", () => client.suspend("offline"));
  on(window, "online", () => client.resume("offline"));
  // An open connection would keep the page out of the back-forward cache.
  on(window, "pagehide", () => (client.save(), client.suspend("left")));
  on(window, "pageshow", () => client.resume("left"));
  on(document, "freeze", () => (client.save(), client.suspend("frozen")));
  on(document, "resume", () => client.resume("frozen"));
  const look = () => {
    clearTimeout(timer);
    if (!document.hidden) return client.resume("hidden");
    client.save();
    if (hiddenAfter <= LONGEST) timer = setTimeout(() => client.suspend("hidden"), hiddenAfter);
  };
  on(document, "visibilitychange", look);
  if (document.hidden) look();
  client.over.addEventListener("abort", () => clearTimeout(timer));
}
