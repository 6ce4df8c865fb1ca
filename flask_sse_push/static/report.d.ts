import type { PushClient } from "./push-client.js";

/**
 * Tells the server how this page's connections went and how long its events took, whenever the page is hidden, left or
 * closed, and each five minutes. Call it in the same task in which you make the client.
 * @param url `<prefix>/report`, of the page's own origin.
 * @returns Stops the reports.
 */
export function report(client: PushClient, url: string | URL): () => void;
