import { describe, expect, it } from 'vitest';
import { wrapRunner, type ModelRunner, type StepBatch } from '../../../src/runtime/model-runner.js';

describe('wrapRunner', () => {
  it('is the model but for what is replaced', async () => {
    const calls: string[] = [];
    const sizes = {
      vocabSize: 1,
      maxModelLen: 2,
      blockSize: 3,
      numBlocks: 4,
      maxLogitRows: 5,
      maxBatchedTokens: 6,
    };
    const runner: ModelRunner = {
      ...sizes,
      step: () => Promise.reject(new Error('step')),
      close: async () => void calls.push('closed'),
    };
    const borrowed = wrapRunner(runner, { close: async () => void calls.push('kept') });
    expect(borrowed).toMatchObject(sizes);
    await expect(borrowed.step({} as StepBatch)).rejects.toThrow('step');
    await borrowed.close();
    expect(calls).toEqual(['kept']);
    await wrapRunner(runner, { step: () => Promise.reject(new Error('watched')) }).close();
    expect(calls).toEqual(['kept', 'closed']);
  });
});
