import { describe, expect, it } from 'vitest';
import { RoundMeter } from '../../../../src/bench/speed/measure-round.js';
import { createEngine, type BatchEngine } from '../../../../src/engine/engine.js';
import { FakeRunner, type FakeRunnerOptions } from '../../../helpers/fake-runner.js';

/** What a step of the virtual machine takes. */
const STEP_MS = 10;
const TOKEN_MS = 0.5;
const CHUNK = 32;

interface Machine {
  readonly runner: FakeRunner;
  readonly engine: BatchEngine;
  readonly meter: RoundMeter;
}

/** An engine on a clock that only steps move: STEP_MS and TOKEN_MS for each token. */
function createMachine(options: FakeRunnerOptions = {}): Machine {
  const runner = new FakeRunner({ maxBatchedTokens: CHUNK, ...options });
  let nowMs = 1000;
  runner.beforeStep = ({ numTokens }) => {
    nowMs += STEP_MS + TOKEN_MS * numTokens;
  };
  const engine = createEngine(runner, {
    scheme: 'none',
    executionProvider: 'cpu',
    maxNumSeqs: 8,
    maxNumBatchedTokens: CHUNK,
    maxModelLen: 512,
    maxWaiting: 8,
    maxWaitingTokens: 1_000_000,
    enablePrefixCaching: true,
    eosTokenIds: [],
    createTextStream: () => ({ push: () => '', end: () => '' }),
    clock: () => nowMs / 1000,
  });
  return { runner, engine, meter: new RoundMeter(engine, () => nowMs) };
}

const never = new AbortController().signal;

describe('RoundMeter', () => {
  it('counts prompt tokens until the first token', async () => {
    const { meter, runner } = createMachine();
    const { prefill, decode } = await meter.measure(
      { promptTokens: 64, steps: 0, depth: 0, sequences: 1 },
      never,
    );
    const ttftMs = 2 * STEP_MS + 64 * TOKEN_MS; // two chunks of 32
    expect(prefill?.ttftMs).toBeCloseTo(ttftMs, 9);
    expect(prefill?.tokensPerSecond).toBeCloseTo((64 * 1000) / ttftMs, 9);
    expect(decode).toBeUndefined();
    expect(runner.steps.map(({ numTokens }) => numTokens)).toEqual([32, 32]);
  });

  it('counts the tokens of all sequences after the first', async () => {
    const { meter, runner } = createMachine();
    const { prefill, decode } = await meter.measure(
      { promptTokens: 0, steps: 10, depth: 0, sequences: 3 },
      never,
    );
    const stepMs = STEP_MS + 3 * TOKEN_MS;
    expect(prefill).toBeUndefined();
    expect(decode?.tokensPerSecond).toBeCloseTo((3 * 1000) / stepMs, 9);
    expect(decode?.gapsMs).toHaveLength(30);
    for (const gap of decode?.gapsMs ?? []) expect(gap).toBeCloseTo(stepMs, 9);
    expect(runner.steps.map(({ numTokens }) => numTokens)).toEqual(Array(11).fill(3));
  });

  it('sees one slow step in one gap of each sequence', async () => {
    const { meter, runner } = createMachine();
    const tick = runner.beforeStep;
    runner.beforeStep = async (step, batch) => {
      // The sixth step is as long as two.
      if (runner.steps.length === 6) await tick({ ...step, numTokens: 0 }, batch);
      await tick(step, batch);
    };
    const { decode } = await meter.measure({ promptTokens: 0, steps: 10, depth: 0, sequences: 2 }, never);
    const slow = decode?.gapsMs.filter((gap) => gap > 15) ?? [];
    expect(slow).toHaveLength(2);
    for (const gap of slow) expect(gap).toBeCloseTo(2 * STEP_MS + 2 * TOKEN_MS, 9);
  });

  it('measures after a prefix that is computed once', async () => {
    const { meter, runner } = createMachine();
    const what = { promptTokens: 16, steps: 4, depth: 64, sequences: 2 };
    await meter.measure(what, never);
    const before = runner.steps.length;
    const { prefill, decode } = await meter.measure(what, never);
    expect(prefill?.ttftMs).toBeCloseTo(STEP_MS + 16 * TOKEN_MS, 9);
    expect(decode?.tokensPerSecond).toBeCloseTo(2000 / (STEP_MS + 2 * TOKEN_MS), 9);
    expect(runner.steps.slice(before).map(({ numTokens }) => numTokens)).toEqual([16, 2, 2, 2, 2, 2]);
  });

  it('never finds a prompt in the cache', async () => {
    const { meter } = createMachine();
    const what = { promptTokens: 32, steps: 0, depth: 32, sequences: 1 };
    const rounds = [
      await meter.measure(what, never),
      await meter.measure(what, never),
      await meter.measure(what, never),
    ];
    for (const { prefill } of rounds) expect(prefill?.ttftMs).toBeCloseTo(STEP_MS + 32 * TOKEN_MS, 9);
  });

  it('computes prefixes again that another case has displaced', async () => {
    const { meter } = createMachine({ numBlocks: 24 });
    const deep = { promptTokens: 4, steps: 2, depth: 32, sequences: 2 };
    const first = await meter.measure(deep, never);
    await meter.measure({ promptTokens: 80, steps: 0, depth: 0, sequences: 1 }, never);
    expect(await meter.measure({ ...deep }, never)).toEqual(first);
  });

  it('reports a pool that cannot hold the prefixes as a bug', async () => {
    const { meter } = createMachine({ numBlocks: 12 });
    await expect(
      meter.measure({ promptTokens: 8, steps: 2, depth: 32, sequences: 2 }, never),
    ).rejects.toThrow('does not keep 2 prefixes of 32 tokens');
  });

  it('ends when it is told to', async () => {
    const { meter, runner, engine } = createMachine();
    const controller = new AbortController();
    const reason = new Error('enough');
    const tick = runner.beforeStep;
    runner.beforeStep = (step, batch) => {
      if (runner.steps.length === 5) controller.abort(reason);
      return tick(step, batch);
    };
    const what = { promptTokens: 0, steps: 100, depth: 0, sequences: 2 };
    await expect(meter.measure(what, controller.signal)).rejects.toBe(reason);
    await expect(meter.measure(what, controller.signal)).rejects.toBe(reason);
    await engine.close();
    expect(runner.steps.length).toBeLessThan(10);
    expect(engine.stats().requests?.live).toBe(0);
  });
});
