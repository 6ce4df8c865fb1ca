import type { PushClient } from "./push-client.js";

/**
 * Tells the server how this page's connections went, whenever the page is hidden, left or closed.
 * @param url `<prefix>/report`, of the page's own origin.
 * @returns Stops the reports.
 */
export function report(client: PushClient, url: string | URL): () => void;
