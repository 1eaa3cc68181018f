import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import { describeShortContext, planMemory, type MemoryRequest } from '../../../src/load/memory-plan.js';

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
    expect(planMemory({ ...request, numBlocks: 4, maxModelLen: 64 }).maxModelLen).toBe(64);
  });

  it.each<[string, Partial<MemoryRequest>, string, string]>([
    ['a block', { kvCacheBytes: 262_143 }, 'kv-cache-memory', '262144 bytes for one block of 16 tokens'],
    [
      'the length asked for',
      { kvCacheBytes: 1_000_000, maxModelLen: 49 },
      'kv-cache-memory',
      '1048576 bytes for the 49 tokens of --max-model-len',
    ],
    [
      'the length asked for, in blocks',
      { numBlocks: 4, maxModelLen: 65 },
      'num-gpu-blocks-override',
      '5 for the 65 tokens of --max-model-len',
    ],
    [
      'a block, whatever the weights take',
      { kvCacheBytes: 1, weightBytes: 6 * GIB },
      'kv-cache-memory',
      '262144 bytes for one block of 16 tokens',
    ],
  ])('refuses a cache that does not hold %s, and says what does', (_what, changes, flag, needed) => {
    const error = failureOf(changes);
    expect(error).toMatchObject({ code: 'usage', param: flag, exitCode: 2 });
    expect(error.message).toBe(
      `Expected --${flag} to be at least ${needed} but received ${changes.kvCacheBytes ?? changes.numBlocks}.`,
    );
    const atLeast = Number(/at least (\d+)/.exec(error.message)?.[1]);
    const enough = changes.numBlocks === undefined ? { kvCacheBytes: atLeast } : { numBlocks: atLeast };
    expect(planMemory({ ...request, ...changes, ...enough, weightBytes: GIB }).maxModelLen).toBe(
      changes.maxModelLen ?? 16,
    );
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

describe('describeShortContext', () => {
  const describe = (changes: Partial<MemoryRequest>): string | undefined => {
    const asked = { ...request, ...changes };
    return describeShortContext(planMemory(asked), asked);
  };

  it('names what shortened the context and what would not', () => {
    expect(describe({ kvCacheBytes: 1_000_000 })).toBe(
      "The context is shortened to 48 of the model's 32768 tokens, as many as the KV cache asked for holds; " +
        'all of them take --kv-cache-memory 536870912. --max-model-len 48 says that it is meant so.',
    );
    expect(describe({ numBlocks: 4 })).toContain('all of them take --num-gpu-blocks-override 2048.');
  });

  it('is silent where the length was asked for, nothing is lost, or memory alone is short', () => {
    expect(describe({ kvCacheBytes: 1_000_000, maxModelLen: 48 })).toBeUndefined();
    expect(describe({ kvCacheBytes: 536_870_912 })).toBeUndefined();
    expect(describe({ modelMaxLen: 400_000 })).toBeUndefined();
  });
});
