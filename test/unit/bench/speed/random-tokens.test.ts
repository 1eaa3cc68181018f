import { describe, expect, it } from 'vitest';
import { RandomTokens } from '../../../../src/bench/speed/random-tokens.js';

describe('RandomTokens', () => {
  it('extends prefixes, and gives the same ones in every process', () => {
    const tokens = new RandomTokens(1000);
    const short = tokens.prefix(3, 16);
    expect(tokens.prefix(3, 64).slice(0, 16)).toEqual(short);
    expect(new RandomTokens(1000).prefix(3, 16)).toEqual(short);
    expect(tokens.prefix(4, 16)).not.toEqual(short);
  });

  it('never repeats what is fresh', () => {
    const tokens = new RandomTokens(1_000_000);
    const chunks = Array.from({ length: 100 }, () => tokens.fresh(8).join());
    expect(new Set(chunks).size).toBe(100);
  });

  it('covers the vocabulary evenly', () => {
    const counts = new Array<number>(10).fill(0);
    for (const id of new RandomTokens(10).fresh(20_000)) counts[id] = (counts[id] ?? 0) + 1;
    expect(counts).toHaveLength(10);
    for (const count of counts) expect(Math.abs(count - 2000)).toBeLessThan(250);
  });
});
