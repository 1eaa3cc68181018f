import { isUtf8 } from 'node:buffer';
import { UserError } from '../errors.js';

/** Nothing a client means nests deeper; recursion over a parsed body stays far from the stack's end. */
export const MAX_JSON_DEPTH = 64;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const INTEGER = /^\s*:\s*(-?\d{1,40})\s*[,}]/;

function invalid(message: string): UserError {
  return new UserError('invalid_request', message, { suggestions: ['Send one JSON object as the body.'] });
}

/** Index after the closing quote of the string that opens at `start`. */
function skipString(body: Buffer, start: number): number {
  let i = start + 1;
  while (i < body.length && body[i] !== QUOTE) i += body[i] === BACKSLASH ? 2 : 1;
  return i + 1;
}

/** Calls `onKey` for every string at depth 1 and returns the deepest nesting, without recursion. */
function scan(body: Buffer, onString: (start: number, end: number) => void): number {
  let depth = 0;
  let deepest = 0;
  for (let i = 0; i < body.length; i++) {
    const byte = body[i];
    if (byte === QUOTE) {
      const end = skipString(body, i);
      if (depth === 1) onString(i, end);
      i = end - 1;
    } else if (byte === 0x5b || byte === 0x7b) {
      depth += 1;
      deepest = Math.max(deepest, depth);
      if (depth > MAX_JSON_DEPTH) return deepest;
    } else if (byte === 0x5d || byte === 0x7d) {
      depth -= 1;
    }
  }
  return deepest;
}

/**
 * Parses a request body. Depth is checked on the bytes before anything walks the value. `seed` is 64-bit: when a JSON number
 * would lose its last digits it is read from the text and becomes a bigint.
 * @throws UserError `invalid_request` when the body is empty, not UTF-8, not JSON, nested too deeply or not an object.
 */
export function parseJsonBody(body: Buffer): Record<string, unknown> {
  if (body.length === 0) throw invalid('The request body is empty.');
  if (!isUtf8(body)) throw invalid('The request body is not UTF-8.');
  let seedEnd = -1;
  const deepest = scan(body, (start, end) => {
    if (end - start === 6 && body.toString('latin1', start, end) === '"seed"' && isKey(body, end))
      seedEnd = end;
  });
  if (deepest > MAX_JSON_DEPTH) throw invalid(`The request body nests deeper than ${MAX_JSON_DEPTH} levels.`);
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch {
    throw invalid('The request body is not valid JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid('The request body is not a JSON object.');
  }
  const object = value as Record<string, unknown>;
  if (typeof object['seed'] === 'number' && !Number.isSafeInteger(object['seed']) && seedEnd >= 0) {
    const digits = INTEGER.exec(body.toString('latin1', seedEnd, seedEnd + 64))?.[1];
    if (digits !== undefined) object['seed'] = BigInt(digits);
  }
  return object;
}

function isKey(body: Buffer, end: number): boolean {
  return /^\s*:/.test(body.toString('latin1', end, end + 16));
}
