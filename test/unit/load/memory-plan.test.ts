import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import { planMemory, type MemoryRequest } from '../../../src/load/memory-plan.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

/** 16 KiB of keys and values a token: a block of 16 positions is 256 KiB. */
const request: MemoryRequest = {
  availableBytes: 10 * GIB,
  utilization: 0.5,
  weightBytes: GIB,
  kvBytesPerToken: 16 * 1024,
  vocabSize: 32_000,
  modelMaxLen: 32_768,
};

function failureOf(changes: Partial<MemoryRequest>): UserError {
  try {
    planMemory({ ...request, ...changes });
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('expected a failure');
}

describe('planMemory', () => {
  it('takes all that may be used when that is less than the default cache', () => {
    const plan = planMemory(request);
    const budget = 5 * GIB - GIB - 400 * MIB;
    expect(plan.numBlocks).toBe(Math.floor(budget / (256 * 1024)));
    expect(plan.kvBytes).toBe(plan.numBlocks * 256 * 1024);
    expect(plan.maxModelLen).toBe(32_768);
    expect(plan).toMatchObject({ maxNumSeqs: 64, maxBatchedTokens: 512, maxLogitRows: 512 });
  });

  it('takes 4 GiB when more would fit, and never more than every sequence can use', () => {
    expect(planMemory({ ...request, availableBytes: 40 * GIB }).kvBytes).toBe(4 * GIB);
    const small = planMemory({ ...request, maxNumSeqs: 2, maxModelLen: 33 });
    expect(small).toMatchObject({ numBlocks: 6, maxModelLen: 33, maxNumSeqs: 2 });
  });

  it('takes more than the default for one sequence of the length asked for, in whole blocks', () => {
    const plan = planMemory({
      ...request,
      availableBytes: 40 * GIB,
      modelMaxLen: 400_000,
      maxModelLen: 300_001,
    });
    expect(plan).toMatchObject({ numBlocks: 18_751, maxModelLen: 300_001 });
  });

  it('shortens the context to a small cache, unless a length was asked for', () => {
    expect(planMemory({ ...request, kvCacheBytes: 1_000_000 })).toMatchObject({
      numBlocks: 3,
      maxModelLen: 48,
    });
    expect(failureOf({ kvCacheBytes: 1_000_000, maxModelLen: 49 }).message).toContain('0.00 GiB');
    expect(failureOf({ numBlocks: 4, maxModelLen: 65 }).code).toBe('out_of_memory');
    expect(planMemory({ ...request, numBlocks: 4, maxModelLen: 64 }).maxModelLen).toBe(64);
  });

  it('refuses weights larger than the memory with every figure', () => {
    const error = failureOf({ weightBytes: 6 * GIB });
    expect(error.code).toBe('out_of_memory');
    expect(error.message).toBe(
      'The model does not fit: 10.00 GiB of memory are available and 50 % of that may be used, but the weights take ' +
        '6.00 GiB, the workspace 0.39 GiB and the KV cache 0.00 GiB (0.00 GiB are left for it).',
    );
    expect(error.suggestions.join(' ')).toMatch(/--quantization.*--max-model-len.*--gpu-memory-utilization/);
  });

  it.each([
    ['kvCacheBytes', { kvCacheBytes: 4 * GIB }],
    ['numBlocks', { numBlocks: 16_384 }],
    ['maxModelLen', { modelMaxLen: 400_000, maxModelLen: 262_144 }],
  ])('refuses a %s above the budget', (_name, changes) => {
    const error = failureOf(changes);
    expect(error.code).toBe('out_of_memory');
    expect(error.message).toContain('the KV cache 4.00 GiB (3.61 GiB are left for it)');
  });

  it('refuses weights that do not fit whatever the block count', () => {
    expect(failureOf({ weightBytes: 6 * GIB, numBlocks: 1 }).code).toBe('out_of_memory');
  });

  it('refuses a context longer than the model was made for', () => {
    const error = failureOf({ maxModelLen: 32_769 });
    expect(error.code).toBe('usage');
    expect(error.message).toMatch(/32768 .*32769/);
  });

  it('sizes the step by sequences, tokens and the logits', () => {
    expect(planMemory({ ...request, maxNumSeqs: 600 }).maxBatchedTokens).toBe(600);
    expect(planMemory({ ...request, maxBatchedTokens: 2048 }).maxLogitRows).toBe(524);
    expect(planMemory({ ...request, vocabSize: 10 ** 6 }).maxLogitRows).toBe(64);
  });
});
