import { describe, expect, it } from 'vitest';
import { nearest } from '../../../src/cli/nearest.js';

describe('nearest', () => {
  const flags = ['port', 'gpu-memory-utilization', 'max-model-len', 'max-num-seqs', 'quantization'];

  it.each([
    ['prot', 'port'],
    ['gpu-mem', 'gpu-memory-utilization'],
    ['max-model-length', 'max-model-len'],
    ['quantisation', 'quantization'],
    ['PORT', 'port'],
  ])('%s means %s', (typed, meant) => {
    expect(nearest(typed, flags)).toBe(meant);
  });

  it.each(['xyz', 'a-wholly-different-name', ''])('%j means nothing known', (typed) => {
    expect(nearest(typed, flags)).toBeUndefined();
  });
});
