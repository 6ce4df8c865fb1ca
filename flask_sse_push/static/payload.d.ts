/** Limit on the bytes of text in an envelope, unless `maxBytes` is given. */
export const MAX_TEXT: number;

/** An envelope is broken or holds too much text. */
export class PayloadError extends Error {
  /** How many bytes of text were unpacked; undefined if the envelope is broken. */
  size?: number;
}

/** Whether a value is an envelope: a compressed payload. */
export function isEnvelope(value: unknown): boolean;

/** Returns the text in an envelope; `base64` is its `data`. Rejects with PayloadError. */
export function inflate(base64: unknown, maxBytes?: number): Promise<string>;

/** Returns the content of an envelope; returns any other value as it is. Rejects with PayloadError. */
export function decompress(value: unknown, maxBytes?: number): Promise<unknown>;
