import { describe, expect, it } from 'vitest';
import type { TextStreamFactory } from '../../src/engine/types.js';
import { createTextStreamFactory } from '../../src/text/detokenizer.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';
import { tokenizerFolder } from '../helpers/fixture-folders.js';
import { fc } from '../helpers/properties.js';

const TIME_LIMIT_MS = 2000;
/** Byte-level, SentencePiece with byte tokens and a leading space, and the same without the leading space. */
const FIXTURES = ['qwen3', 'mistral', 'gemma3_text', 'llama'];

describe.each(FIXTURES)('%s', (name) => {
  it('streams the same text as decoding at once, for every split between prompt and answer', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder(name));
    const streams: TextStreamFactory = createTextStreamFactory(tokenizer);
    const id = fc.nat({ max: tokenizer.vocabSize + 3 });
    fc.assert(
      fc.property(fc.array(id, { maxLength: 60 }), fc.boolean(), fc.nat(), (ids, skipSpecialTokens, cut) => {
        const whole = streams({ skipSpecialTokens, spacesBetweenSpecialTokens: true, promptTokenIds: [] });
        const pieces = ids.map((one) => whole.push(one));
        expect(pieces.join('') + whole.end()).toBe(tokenizer.decode(ids, skipSpecialTokens));

        // After a prompt, a stream gives exactly what the prompt's own stream would have gone on with.
        const split = ids.length === 0 ? 0 : cut % (ids.length + 1);
        const prompt = ids.slice(0, split);
        const after = streams({
          skipSpecialTokens,
          spacesBetweenSpecialTokens: true,
          promptTokenIds: prompt,
        });
        const rest = ids.slice(split).map((one) => after.push(one));
        const reference = streams({
          skipSpecialTokens,
          spacesBetweenSpecialTokens: true,
          promptTokenIds: [],
        });
        for (const one of prompt) reference.push(one);
        const expected = ids.slice(split).map((one) => reference.push(one));
        expect(rest).toEqual(expected);
        expect(after.end()).toBe(reference.end());
      }),
      { interruptAfterTimeLimit: TIME_LIMIT_MS, numRuns: 5000 },
    );
  });

  it('never emits half a character of valid text', async () => {
    const tokenizer = await loadTokenizer(tokenizerFolder(name));
    const streams = createTextStreamFactory(tokenizer);
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }), (text) => {
        fc.pre(!text.includes('\ufffd'));
        const ids = tokenizer.encode(text, false);
        const stream = streams({
          skipSpecialTokens: false,
          spacesBetweenSpecialTokens: true,
          promptTokenIds: [],
        });
        const pieces = ids.map((one) => stream.push(one));
        for (const piece of pieces) {
          expect(/\p{Cs}/u.test(piece)).toBe(false);
          expect(piece.includes('\ufffd')).toBe(false);
        }
        expect(stream.end()).toBe('');
      }),
      { interruptAfterTimeLimit: TIME_LIMIT_MS, numRuns: 2000 },
    );
  });
});
