import { describe, expect, it } from 'vitest';
import { blocksOf, caseName, expandCases, longestSequence } from '../../../../src/bench/speed/cases.js';

const lists = { promptTokens: [512], steps: [128], depths: [0], sequences: [1] };

describe('expandCases', () => {
  it('measures every combination once, those of one depth together', () => {
    const cases = expandCases({
      promptTokens: [64, 128, 64],
      steps: [16],
      depths: [0, 4096],
      sequences: [1, 8],
    });
    expect(cases.map(caseName)).toEqual([
      'p=64 n=16 d=0 b=1',
      'p=128 n=16 d=0 b=1',
      'p=64 n=16 d=0 b=8',
      'p=128 n=16 d=0 b=8',
      'p=64 n=16 d=4096 b=1',
      'p=128 n=16 d=4096 b=1',
      'p=64 n=16 d=4096 b=8',
      'p=128 n=16 d=4096 b=8',
    ]);
  });

  it('leaves out what measures nothing', () => {
    const cases = expandCases({ ...lists, promptTokens: [0, 512], steps: [0, 128] });
    expect(cases.map(caseName)).toEqual(['p=0 n=128 d=0 b=1', 'p=512 n=0 d=0 b=1', 'p=512 n=128 d=0 b=1']);
    expect(() => expandCases({ ...lists, promptTokens: [0], steps: [0] })).toThrow('both -p and -n are 0');
  });

  it('refuses depths that are no whole blocks of the cache', () => {
    expect(() => expandCases({ ...lists, depths: [0, 100] })).toThrow(/multiples of 16.* received 100/);
  });
});

describe('sizes', () => {
  const what = { promptTokens: 512, steps: 128, depth: 4096, sequences: 8 };

  it('hold the longer of prompt and answer', () => {
    expect(longestSequence(what)).toBe(4096 + 513);
    expect(longestSequence({ ...what, steps: 1000 })).toBe(4096 + 1002);
  });

  it('hold all prefixes, and what follows them twice', () => {
    // 256 blocks a prefix, 33 for 513 tokens, 9 for 130 tokens
    expect(blocksOf(what)).toBe(8 * 256 + 2 * (33 + 8 * 9));
  });
});
