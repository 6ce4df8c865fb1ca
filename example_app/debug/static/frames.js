// @ts-check
/** Reads the bytes of a stream over a separate connection, and splits them into frames. */

/** Milliseconds before it reconnects. */
const PAUSE = 2000;
/** Maximum number of characters of a frame. */
const LONGEST = 100_000;

/**
 * Reads the stream as long as the page is open.
 * @param {string} url @param {(frame: string) => void} show Gets the text of each frame.
 */
export async function readFrames(url, show) {
  for (;;) {
    try {
      await read(url, show);
      show("(the server ended the connection)");
    } catch (error) {
      show(`(${/** @type {Error} */ (error).message})`);
    }
    await new Promise((go) => setTimeout(go, PAUSE));
  }
}

/** @param {string} url @param {(frame: string) => void} show */
async function read(url, show) {
  const answer = await fetch(url, { headers: { Accept: "text/event-stream" }, cache: "no-store" });
  if (!answer.ok) throw new Error(`refused with status ${answer.status}`);
  const bytes = /** @type {ReadableStream<BufferSource>} */ (answer.body);
  const reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop() ?? "";
    frames.forEach(show);
    if (rest.length > LONGEST) throw new Error("a frame without an end");
  }
}
