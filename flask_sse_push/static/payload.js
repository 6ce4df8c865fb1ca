/** Compressed payloads: an envelope with gzip in base64 in place of an event's text, see docs/protocol.md. */

/** Bytes of text that an envelope may hold: a bomb is given up there. */
export const MAX_TEXT = 10_000_000;

/** An envelope is broken, or holds too much. */
export class PayloadError extends Error {
  name = "PayloadError";
}

/** Whether a value bears the mark of an envelope. */
export function isEnvelope(value) {
  return (
    value?.compressed === true &&
    value.encoding === "gzip+base64" &&
    "data" in value &&
    Object.keys(value).length === 3
  );
}

/**
 * Puts the content of an envelope in the place of a message's `data`; when that cannot be had, the message is
 * `broken`. A message without an envelope stays as it is.
 */
export async function unpack(message, maxBytes) {
  if (!isEnvelope(message.data)) return;
  try {
    message.data = await decompress(message.data, maxBytes);
  } catch (error) {
    message.broken = error;
  }
}

/**
 * What was packed into an envelope; any other value as it is.
 * @throws {PayloadError} when the envelope is broken or holds more than `maxBytes` of text.
 */
export async function decompress(value, maxBytes = MAX_TEXT) {
  if (!isEnvelope(value)) return value;
  const text = await inflate(value.data, maxBytes);
  try {
    return JSON.parse(text);
  } catch {
    return text; // what was published was a string
  }
}

async function inflate(base64, maxBytes) {
  try {
    const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    let [text, size] = ["", 0];
    for (const reader = stream.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) return text + decoder.decode();
      size += value.length;
      if (size > maxBytes) {
        await reader.cancel();
        throw new PayloadError(`it holds more than ${maxBytes} bytes`);
      }
      text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    throw error instanceof PayloadError ? error : new PayloadError(`it cannot be read: ${error.message}`);
  }
}

function bytesOf(base64) {
  if (typeof base64 !== "string") throw new PayloadError(`its data is ${typeof base64}, must be a string of base64`);
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
