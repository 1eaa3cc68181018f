import { performance } from 'node:perf_hooks';
import { expect, it } from 'vitest';
import { PrefixHasher } from '../../../src/engine/block-manager.js';
import { createEngine } from '../../../src/engine/engine.js';
import type { SamplingResult } from '../../../src/runtime/addon.js';
import type { ModelRunner, StepBatch } from '../../../src/runtime/model-runner.js';
import { collect, prompt, request, wordStream } from './harness.js';

const NUM_SEQUENCES = 32;
const NUM_TOKENS = 600;
const MICROSECONDS_PER_MS = 1000;
const MAX_STEP_MS = 0.3;
/** The best of several runs: other work on the machine only ever adds. */
const NUM_RUNS = 3;
const MAX_HASH_MS = 25;

/** Answers at once: nearly all the time of a step is the engine's own. */
class InstantRunner implements ModelRunner {
  readonly vocabSize = 32_000;
  readonly maxModelLen = 4096;
  readonly blockSize = 16;
  readonly numBlocks = 8192;
  readonly maxLogitRows = 64;
  readonly maxBatchedTokens = 4096;
  numSteps = 0;

  step(batch: StepBatch): Promise<SamplingResult> {
    this.numSteps++;
    const { rows } = batch.sampling;
    return Promise.resolve({
      ids: new Int32Array(rows).fill(9),
      logprobs: new Float32Array(rows),
      ranks: new Int32Array(rows).fill(1),
      topIds: new Int32Array(0),
      topLogprobs: new Float32Array(0),
      topStride: 0,
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** CPU time of a step, milliseconds: unlike wall time it does not count what else the machine does. */
async function measureStep(): Promise<number> {
  const runner = new InstantRunner();
  const engine = createEngine(runner, {
    scheme: 'none',
    executionProvider: 'cpu',
    maxNumSeqs: NUM_SEQUENCES,
    maxNumBatchedTokens: 4096,
    maxModelLen: 4096,
    maxWaiting: 100,
    maxWaitingTokens: 1_000_000,
    enablePrefixCaching: true,
    eosTokenIds: [0],
    createTextStream: wordStream,
  });
  const sampling = { maxTokens: NUM_TOKENS, temperature: 0.7, stop: ['never'] };
  const began = process.cpuUsage();
  await Promise.all(
    Array.from({ length: NUM_SEQUENCES }, (_, i) =>
      collect(engine.generate(request(prompt(100, i), sampling))),
    ),
  );
  const { user, system } = process.cpuUsage(began);
  return (user + system) / MICROSECONDS_PER_MS / runner.numSteps;
}

it('spends little time of its own on a step of 32 sequences, reading the outputs included', async () => {
  const times: number[] = [];
  for (let run = 0; run < NUM_RUNS; run++) times.push(await measureStep());
  expect(Math.min(...times), `ms a step: ${times.join(', ')}`).toBeLessThan(MAX_STEP_MS);
});

it('names the blocks of a long prompt without holding up the event loop', () => {
  const hasher = new PrefixHasher(16);
  const tokens = Int32Array.from(prompt(32_768));
  const times = Array.from({ length: NUM_RUNS }, () => {
    const began = performance.now();
    hasher.chain(hasher.root('open', ''), tokens);
    return performance.now() - began;
  });
  expect(Math.min(...times), `ms: ${times.join(', ')}`).toBeLessThan(MAX_HASH_MS);
});
