// @ts-check
/**
 * Shows on every page whether its stream is live, has resumed, or waits to reconnect.
 * @import { PushClient } from "../../flask_sse_push/static/push-client.js"
 */

/** @type {Record<string, string>} */
const REASONS = {
  lost: "the connection was lost",
  refused: "the server refused the stream",
  silent: "nothing came for too long",
  drain: "the server is restarting and said goodbye",
};

/**
 * Writes the state of a stream into an element's text and `data-state`, and logs each change.
 *
 * A stream that was open may move to another connection, because the tabs of a browser share connections. The user
 * notices nothing then, so the text stays.
 * @param {PushClient} client
 * @param {HTMLElement} element Has role="status", so that screen readers read it out.
 * @param {(text: string) => void} log Gets a text for each change.
 */
export function showState(client, element, log) {
  const show = (/** @type {string} */ state, /** @type {string} */ text) => {
    element.dataset.state = state;
    element.textContent = text;
  };
  let wasOpen = false; // before the newest `sse.open`

  client.addEventListener("statechange", ({ detail: { state, reason = "", delay = 0 } }) => {
    if (state === "open") wasOpen = false;
    if (state === "connecting") show(state, "Connecting…");
    if (state === "closed") show(state, "Closed");
    if (state === "waiting") {
      show(state, "Waiting to reconnect…");
      log(`${REASONS[reason] ?? reason}; next try in ${(delay / 1000).toFixed(1)} s`);
    }
  });
  client.on("sse.open", ({ data }) => {
    if (wasOpen) return log("moved to another connection");
    wasOpen = true;
    if (data.resumed) show("resumed", "Live, resumed");
    else show("open", "Live");
    log(data.resumed ? "resumed where it was" : `open: ${data.channels.join(", ")}`);
  });
  client.on("sse.reset", ({ data }) => {
    show("reset", "Live, history lost");
    log(`reset (${data.reason}): events of ${data.channels.join(", ")} were lost`);
  });
  client.on("sse.error", ({ data }) => log(`error ${data.code}: ${data.message}`));
}

/** Reasons in `sse.close` after which the user may no longer read the stream. */
const ENDED = ["logout", "revoked"];

/** Whether the user is leaving the page. After signing out, this tab loads another page; a reload would stop that. */
let leaving = false;
addEventListener("beforeunload", () => {
  leaving = true;
});

/**
 * Reloads the page when the user has signed out. The server refuses the stream then. After a logout in another tab,
 * it also closes the open stream at once.
 * @param {PushClient} client
 * @param {string} whoami Address that returns who is signed in.
 */
export function reloadWhenSignedOut(client, whoami) {
  client.addEventListener("statechange", async ({ detail }) => {
    if (ENDED.includes(detail.reason ?? "") && !leaving) location.reload();
    if (detail.reason !== "refused") return;
    const answer = await fetch(whoami).catch(() => null); // the server may be down
    if (answer?.ok && (await answer.json()).user === null) location.reload();
  });
}
