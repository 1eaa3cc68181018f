import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { createEngine } from '../../src/engine/engine.js';
import type { EngineOutput, GenerationRequest, SamplingParams } from '../../src/engine/types.js';
import { loadModel } from '../../src/load/load-model.js';
import { loadText } from '../../src/load/load-text.js';
import type { KvDataType } from '../../src/runtime/addon.js';

const DEMO = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
const EOS = [2045, 2047];

const PARAMS: SamplingParams = {
  temperature: 1,
  topP: 0.95,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1.05,
  presencePenalty: 0.1,
  frequencyPenalty: 0.1,
  logitBias: new Map(),
  allowedTokenIds: [],
  badWords: [],
  maxTokens: 60,
  minTokens: 0,
  stop: [],
  stopTokenIds: [],
  includeStopStrInOutput: false,
  ignoreEos: true,
  n: 1,
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: false,
};

/** Prompts of 3 to 120 tokens, some with a common start. */
const requests: readonly GenerationRequest[] = Array.from({ length: 12 }, (_, r) => ({
  id: `request-${r}`,
  promptTokenIds: Array.from({ length: 3 + ((r * 37) % 118) }, (__, i) =>
    i < 40 && r % 3 === 0 ? 300 + i : (r * 131 + i * 17) % 2000,
  ),
  params: { ...PARAMS, seed: BigInt(r) ** 5n },
}));

async function collectIds(outputs: AsyncIterable<EngineOutput>): Promise<readonly number[]> {
  const ids: number[] = [];
  for await (const output of outputs) if (output.kind === 'delta') ids.push(...output.choice.tokenIds);
  return ids;
}

interface GenerateOptions {
  readonly together: boolean;
  readonly chunk: number;
  readonly kv?: 'auto' | KvDataType;
}

/** Answers with a pool of this many blocks, all requests together or one after the other. */
async function generate(
  numBlocks: number,
  { together, chunk, kv = 'auto' }: GenerateOptions,
): Promise<{ ids: readonly (readonly number[])[]; preemptions: number }> {
  const { runner, scheme, memory } = await loadModel(
    {
      model: DEMO,
      quantization: 'block_wise_fp8',
      dtype: 'auto',
      kvCacheDtype: kv,
      threads: 2,
      memory: { utilization: 0.9, numBlocks, maxModelLen: 256, maxNumSeqs: 12, maxBatchedTokens: chunk },
    },
    { phase: () => undefined, warn: () => undefined },
  );
  const text = await loadText(DEMO);
  let preemptions = 0;
  const engine = createEngine(runner, {
    scheme,
    executionProvider: 'cpu',
    maxNumSeqs: memory.maxNumSeqs,
    maxNumBatchedTokens: memory.maxBatchedTokens,
    maxModelLen: memory.maxModelLen,
    maxWaiting: 64,
    maxWaitingTokens: 1 << 20,
    enablePrefixCaching: true,
    eosTokenIds: EOS,
    createTextStream: text.createTextStream,
    observer: {
      onStep: () => undefined,
      onFirstToken: () => undefined,
      onInterToken: () => undefined,
      onPreemption: () => {
        preemptions++;
      },
      onPrefixQuery: () => undefined,
      onFinish: () => undefined,
    },
  });
  const ids: (readonly number[])[] = [];
  if (together)
    ids.push(...(await Promise.all(requests.map((request) => collectIds(engine.generate(request))))));
  else for (const request of requests) ids.push(await collectIds(engine.generate(request)));
  expect(engine.stats().kvBlocksUsed).toBe(0);
  await engine.close();
  await text.renderer.close();
  return { ids, preemptions };
}

describe('the engine on a real model', () => {
  it('samples the same tokens alone, batched, and preempted in a tiny pool', async () => {
    const solo = await generate(512, { together: false, chunk: 256 });
    expect(solo.preemptions).toBe(0);
    expect(solo.ids.map((ids) => ids.length)).toEqual(requests.map(() => PARAMS.maxTokens));
    const batched = await generate(512, { together: true, chunk: 64 });
    expect(batched).toEqual({ ids: solo.ids, preemptions: 0 });
    const squeezed = await generate(24, { together: true, chunk: 32 });
    expect(squeezed.preemptions).toBeGreaterThan(0);
    expect(squeezed.ids).toEqual(solo.ids);
  });

  // A block that is evicted and computed again, one that is shared with a common start, and one that decode steps
  // filled token by token: all hold the same codes.
  it.each(['int8', 'fp8', 'int4'] as const)('does so over a %s KV cache', async (kv) => {
    const solo = await generate(512, { together: false, chunk: 256, kv });
    const squeezed = await generate(24, { together: true, chunk: 24, kv });
    expect(squeezed.preemptions).toBeGreaterThan(0);
    expect(squeezed.ids).toEqual(solo.ids);
  });
});
