/** Bytes of text that an envelope may hold unless told otherwise. */
export const MAX_TEXT: number;

/** An envelope is broken, or holds too much. */
export class PayloadError extends Error {}

/** Whether a value bears the mark of an envelope. */
export function isEnvelope(value: unknown): boolean;

/** What was packed into an envelope; any other value as it is. Rejects with PayloadError. */
export function decompress(value: unknown, maxBytes?: number): Promise<unknown>;
