/** Reads a stream as bytes, by a connection of its own, and cuts it where frames end. */

/** Ms until it connects again. */
const PAUSE = 2000;
/** Characters of a frame that has no end. */
const LONGEST = 100_000;

/** Reads for as long as the page lives. @param {(frame: string) => void} show Gets each frame as it came. */
export async function readFrames(url, show) {
  for (;;) {
    try {
      await read(url, show);
      show("(the server ended the connection)");
    } catch (error) {
      show(`(${error.message})`);
    }
    await new Promise((go) => setTimeout(go, PAUSE));
  }
}

async function read(url, show) {
  const answer = await fetch(url, { headers: { Accept: "text/event-stream" }, cache: "no-store" });
  if (!answer.ok) throw new Error(`refused with status ${answer.status}`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    frames.forEach(show);
    if (rest.length > LONGEST) throw new Error("a frame without an end");
  }
}
