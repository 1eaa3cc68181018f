import process from 'node:process';
import { expect, it } from 'vitest';
import { PrefixHasher } from '../../../src/engine/block-manager.js';
import { createEngine } from '../../../src/engine/engine.js';
import type { SamplingResult } from '../../../src/runtime/addon.js';
import type { ModelRunner, StepBatch } from '../../../src/runtime/model-runner.js';
import { collect, prompt, request, wordStream } from './harness.js';

const NUM_SEQUENCES = 32;
const NUM_TOKENS = 600;
/** The best of several runs: other work on the machine only ever adds. */
const NUM_RUNS = 5;
/** Rounds of a loop of arithmetic, about a millisecond: CPU times are told in it, so that the machine's speed is not. */
const UNIT_ROUNDS = 1_000_000;
const MAX_STEP_UNITS = 0.2;
const MAX_HASH_UNITS = 10;

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

/** CPU time in microseconds: unlike wall time it does not count what else the machine does. */
function measureCpu(): () => number {
  const began = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(began);
    return user + system;
  };
}

function measureUnit(): number {
  const elapsed = measureCpu();
  let hash = 1;
  for (let i = 0; i < UNIT_ROUNDS; i++) hash = Math.imul(hash ^ i, 0x01000193);
  expect(hash).not.toBe(0);
  return elapsed();
}

/** CPU time of a step. */
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
  const elapsed = measureCpu();
  await Promise.all(
    Array.from({ length: NUM_SEQUENCES }, (_, i) =>
      collect(engine.generate(request(prompt(100, i), sampling))),
    ),
  );
  return elapsed() / runner.numSteps;
}

it('spends little time of its own on a step of 32 sequences, reading the outputs included', async () => {
  const units: number[] = [];
  const times: number[] = [];
  for (let run = 0; run < NUM_RUNS; run++) {
    units.push(measureUnit());
    times.push(await measureStep());
  }
  const said = `us a step: ${times.join(', ')}; a unit: ${units.join(', ')}`;
  expect(Math.min(...times) / Math.min(...units), said).toBeLessThan(MAX_STEP_UNITS);
});

it('names the blocks of a long prompt without holding up the event loop', () => {
  const hasher = new PrefixHasher(16);
  const tokens = Int32Array.from(prompt(32_768));
  const units = Array.from({ length: NUM_RUNS }, measureUnit);
  const times = Array.from({ length: NUM_RUNS }, () => {
    const elapsed = measureCpu();
    hasher.chain(hasher.root('open', ''), tokens);
    return elapsed();
  });
  const said = `us: ${times.join(', ')}; a unit: ${units.join(', ')}`;
  expect(Math.min(...times) / Math.min(...units), said).toBeLessThan(MAX_HASH_UNITS);
});
