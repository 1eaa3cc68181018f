import { TextDecoder } from 'node:util';
import type { Tokenizer } from './tokenizer.js';

/** Turns ids into text, never emitting part of a character. The shape is the engine's `TextStream`. */
export interface IncrementalText {
  push(id: number): string;
  end(): string;
}

export interface TextStreamOptions {
  readonly skipSpecialTokens: boolean;
  /** Accepted for vLLM's clients; no supported decoder puts spaces between special tokens. */
  readonly spacesBetweenSpecialTokens: boolean;
  readonly promptTokenIds: readonly number[];
}

/** No UTF-8 sequence is longer, so what lies further back cannot matter. */
const MAX_UTF8_BYTES = 4;

/** Feeds the end of the prompt, so that a character which begins there is completed by the first generated ids. */
function prime(
  decoder: TextDecoder,
  bytesOf: (id: number) => Uint8Array,
  promptTokenIds: readonly number[],
): boolean {
  let start = promptTokenIds.length;
  let length = 0;
  while (start > 0 && length < MAX_UTF8_BYTES) {
    start -= 1;
    length += bytesOf(promptTokenIds[start] as number).length;
  }
  for (const id of promptTokenIds.slice(start)) decoder.decode(bytesOf(id), { stream: true });
  return length > 0;
}

/**
 * A factory of streams with, for every split of `ids`: text of the pushes + text of `end` = decoding all ids at once after
 * the prompt. Cost per id is its own bytes; nothing is decoded twice. The leading space that SentencePiece vocabularies add
 * is dropped only where the text itself starts, that is when the prompt decodes to nothing.
 */
export function createTextStreamFactory(
  tokenizer: Tokenizer,
): (options: TextStreamOptions) => IncrementalText {
  return ({ skipSpecialTokens, promptTokenIds }) => {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const bytesOf = (id: number): Uint8Array => tokenizer.tokenBytes(id, skipSpecialTokens);
    let spacesToStrip = prime(decoder, bytesOf, promptTokenIds) ? 0 : tokenizer.leadingSpacesToStrip;
    const strip = (text: string): string => {
      let start = 0;
      while (spacesToStrip > 0 && start < text.length) {
        spacesToStrip = text[start] === ' ' ? spacesToStrip - 1 : 0;
        if (text[start] === ' ') start += 1;
      }
      return text.slice(start);
    };
    return {
      push: (id) => strip(decoder.decode(bytesOf(id), { stream: true })),
      end: () => strip(decoder.decode()),
    };
  };
}
