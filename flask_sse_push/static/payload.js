// @ts-check
/** Compressed payloads: an envelope holds an event's text as gzip in base64. docs/protocol.md describes the format. */

/** At most how many bytes of text an envelope may have, so that a small but malicious event cannot fill the memory. */
export const MAX_TEXT = 10_000_000;

/** An envelope is broken or holds too much text. */
export class PayloadError extends Error {
  name = "PayloadError";
  /** @type {number | undefined} How many bytes of text were unpacked; undefined if the envelope is broken. */
  size;
}

/** Whether a value is an envelope. @param {any} value @returns {value is { data: unknown }} */
export function isEnvelope(value) {
  return (
    value?.compressed === true &&
    value.encoding === "gzip+base64" &&
    "data" in value &&
    Object.keys(value).length === 3
  );
}

/**
 * Returns the content of an envelope; returns any other value as it is.
 * @type {typeof import("./payload.js").decompress}
 * @throws {PayloadError} If the envelope is broken or has more than `maxBytes` of text.
 */
export async function decompress(value, maxBytes) {
  if (!isEnvelope(value)) return value;
  const text = await inflate(value.data, maxBytes);
  try {
    return JSON.parse(text);
  } catch {
    return text; // the app published a string
  }
}

/** Returns the text in an envelope. @type {typeof import("./payload.js").inflate} */
export async function inflate(base64, maxBytes = MAX_TEXT) {
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
        throw Object.assign(new PayloadError(`it holds more than ${maxBytes} bytes`), { size });
      }
      text += decoder.decode(value, { stream: true });
    }
  } catch (error) {
    if (error instanceof PayloadError) throw error;
    throw new PayloadError(`it cannot be read: ${/** @type {Error} */ (error).message}`);
  }
}

/** @param {unknown} base64 */
function bytesOf(base64) {
  if (typeof base64 !== "string") throw new PayloadError(`its data is ${typeof base64}, must be a string of base64`);
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
