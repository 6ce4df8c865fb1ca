/** What every page with a stream shows of it: whether it is live, has resumed, or waits. */

/**
 * Keeps an element's text and `data-state` at the state of a stream, and tells each step.
 * @param {EventTarget} client A PushClient.
 * @param {HTMLElement} element With role="status", so that it is read out.
 * @param {(text: string) => void} tell Gets a sentence for each thing that happened.
 */
export function showState(client, element, tell) {
  const show = (state, text) => {
    element.dataset.state = state;
    element.textContent = text;
  };

  client.addEventListener("statechange", ({ detail: { state, reason, delay } }) => {
    if (state === "connecting") show(state, "Connecting…");
    if (state === "closed") show(state, "Closed");
    if (state === "waiting") {
      show(state, "Waiting to reconnect…");
      tell(`${REASONS[reason] ?? reason}; next try in ${(delay / 1000).toFixed(1)} s`);
    }
  });
  client.on("sse.open", ({ data }) => {
    if (data.resumed) show("resumed", "Live, resumed");
    else show("open", "Live");
    tell(data.resumed ? "resumed where it was" : `open: ${data.channels.join(", ")}`);
  });
  client.on("sse.reset", ({ data }) => {
    show("reset", "Live, history lost");
    tell(`reset (${data.reason}): events of ${data.channels.join(", ")} were lost`);
  });
  client.on("sse.error", ({ data }) => tell(`error ${data.code}: ${data.message}`));
}

const REASONS = {
  lost: "the connection was lost",
  refused: "the server refused the stream",
  silent: "nothing came for too long",
  drain: "the server is restarting and said goodbye",
};

/** Why a stream is over that nobody may have any more. */
const ENDED = ["logout", "revoked"];

/** The tab that signs out is on its way already: a reload would stop it. */
let leaving = false;
addEventListener("beforeunload", () => {
  leaving = true;
});

/**
 * A stream is refused when the session has ended, and ended at once by a logout in another tab: then the page
 * is asked for anew, with what is left to it.
 * @param {EventTarget} client A PushClient.
 * @param {string} whoami Where the app tells who is signed in.
 */
export function reloadWhenSignedOut(client, whoami) {
  client.addEventListener("statechange", async ({ detail }) => {
    if (ENDED.includes(detail.reason) && !leaving) location.reload();
    if (detail.reason !== "refused") return;
    const answer = await fetch(whoami).catch(() => null); // the server may be down just now
    if (answer?.ok && (await answer.json()).user === null) location.reload();
  });
}
