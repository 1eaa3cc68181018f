import { describe, expect, it } from 'vitest';
import { StopChecker, StopStrings } from '../../../src/engine/stop.js';
import { params, wordStream } from './harness.js';
import { fc } from '../../helpers/properties.js';

function feed(
  stops: readonly string[],
  pieces: readonly string[],
  keep = false,
): [string, string | null, string] {
  const matcher = new StopStrings(stops, keep);
  const shown = pieces.map((piece) => matcher.push(piece)).join('');
  return [shown, matcher.found, matcher.flush()];
}

/** The first end of any stop string; of those ending together, the longest. */
function expected(stops: readonly string[], text: string): { text: string; found: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    const longest = ending.sort((a, b) => b.length - a.length)[0];
    if (longest !== undefined) return { text: text.slice(0, end - longest.length), found: longest };
  }
  return { text, found: null };
}

describe('StopStrings', () => {
  it.each([
    [['END'], ['abEN', 'Dcd'], ['ab', 'END', '']],
    [['aab'], ['aa', 'a', 'b!'], ['a', 'aab', '']],
    [['abab'], ['abaab', 'ab'], ['aba', 'abab', '']],
    [
      ['bc', 'abcd'],
      ['ab', 'cd'],
      ['a', 'bc', ''],
    ],
    [['c', 'abc'], ['abc'], ['', 'abc', '']],
    [['END'], ['abEN'], ['ab', null, 'EN']],
    [[], ['ab'], ['ab', null, '']],
  ])('cuts %j out of %j', (stops, pieces, wanted) => {
    expect(feed(stops, pieces)).toEqual(wanted);
  });

  it('keeps the stop string when asked, and nothing after it', () => {
    expect(feed(['END'], ['abE', 'NDcd', 'more'], true)).toEqual(['abEND', 'END', '']);
  });

  it('holds back no more than may still become a stop string', () => {
    const matcher = new StopStrings(['<end>'], false);
    expect(['a<', 'e', 'x', '<en', '<', 'b'].map((piece) => matcher.push(piece))).toEqual([
      'a',
      '',
      '<ex',
      '',
      '<en',
      '<b',
    ]);
  });

  it('does not depend on how the text arrives', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 30 });
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(stop, { maxLength: 3 }), fc.array(letters, { maxLength: 6 }), (stops, pieces) => {
        const [shown, found, rest] = feed(stops, pieces);
        expect({ text: shown + rest, found }).toEqual(expected(stops, pieces.join('')));
      }),
      { numRuns: 2000 },
    );
  });

  it('stays linear on text that nearly matches', () => {
    const matcher = new StopStrings(['a'.repeat(2000) + 'b'], false);
    for (let i = 0; i < 20_000; i++) matcher.push('a');
    expect(matcher.flush()).toBe('a'.repeat(2000));
  });
});

describe('StopChecker', () => {
  const NO_CONTEXT = { skipSpecialTokens: true, spacesBetweenSpecialTokens: true, promptTokenIds: [] };

  it('adds what the text stream held to the end, and searches it', () => {
    const slow = { push: () => '', end: () => 'tail' };
    const plain = new StopChecker(params(), new Set(), 1, slow);
    expect(plain.accept(5)).toEqual({ text: 'tail', finishReason: 'length', stopReason: null });
    const cut = new StopChecker(params({ stop: ['ai'] }), new Set(), 1, slow);
    expect(cut.accept(5)).toEqual({ text: 't', finishReason: 'stop', stopReason: 'ai' });
  });

  it('searches no text of the promised minimum', () => {
    const sampling = params({ stop: ['<1>'], minTokens: 3 });
    const checker = new StopChecker(sampling, new Set(), 100, wordStream(NO_CONTEXT));
    expect([1, 1, 2, 1].map((id) => checker.accept(id).finishReason)).toEqual([null, null, null, 'stop']);
  });

  it('prefers end of text to the length on the last token', () => {
    const checker = new StopChecker(params({ ignoreEos: false }), new Set([0]), 1, wordStream(NO_CONTEXT));
    expect(checker.accept(0)).toEqual({ text: '', finishReason: 'stop', stopReason: null });
  });

  it('takes an end-of-text id for a stop token id when only that counts', () => {
    const sampling = params({ ignoreEos: true, stopTokenIds: [0] });
    const checker = new StopChecker(sampling, new Set([0]), 9, wordStream(NO_CONTEXT));
    expect(checker.accept(0)).toEqual({ text: '', finishReason: 'stop', stopReason: 0 });
  });
});
