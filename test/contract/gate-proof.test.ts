import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compareSides, type RoundSource } from '../../src/bench/gate/compare-sides.js';
import { parseGate } from '../../src/bench/gate/options.js';
import type { Verdict } from '../../src/bench/report.js';
import type { LoadedModel } from '../../src/load/load-model.js';
import { ENVIRONMENT } from '../helpers/bench-report.js';
import { DEMO } from '../helpers/demo-model.js';
import { blockRange, loadFolder } from '../helpers/fixture-model.js';
import { packStep } from '../helpers/step-batch.js';

const RUNS = 20;
/** The fastest counts: what other programs add to a step is not the build's. */
const STEPS_PER_ROUND = 4;
const CONTEXT = 100;

/** Decode steps of the demo model on whatever machine this is, with all its noise. */
describe('the gate on real decode steps', { timeout: 300_000 }, () => {
  let model: LoadedModel;

  beforeAll(async () => {
    model = await loadFolder(DEMO, { quantization: 'wint4', threads: 1, dtype: 'auto' });
    for (let i = 0; i < 100; i++) await step(0);
  });
  afterAll(() => model.runner.close());

  const batch = packStep([{ ids: [7], start: CONTEXT, blocks: blockRange(0, 8), rows: [0] }]);

  /** One step, and a wait of a share of what it took. */
  async function step(slowdown: number): Promise<void> {
    const began = performance.now();
    await model.runner.logits(batch);
    const end = performance.now() + (performance.now() - began) * slowdown;
    while (performance.now() < end);
  }

  async function measure(slowdown: number): Promise<{ readonly decode: number }> {
    let fastest = Infinity;
    for (let i = 0; i < STEPS_PER_ROUND; i++) {
      const began = performance.now();
      await step(slowdown);
      fastest = Math.min(fastest, performance.now() - began);
    }
    return { decode: 1000 / fastest };
  }

  /** The sides share one model, which takes one step at a time; builds warm up together. */
  let turn: Promise<unknown> = Promise.resolve();

  function createSide(slowdown: number): RoundSource {
    return {
      scenarios: ['demo'],
      environment: ENVIRONMENT,
      measure: () => {
        const round = turn.then(() => measure(slowdown));
        turn = round.catch(() => undefined);
        return round;
      },
      close: async () => undefined,
      kill: async () => undefined,
    };
  }

  async function compare(slowdown: number, seed: number): Promise<Verdict | undefined> {
    const gate = parseGate(
      {
        'fail-if': ['decode < -5%'],
        'baseline-command': 'the same without a slowdown',
        'time-budget': '20s',
        'min-rounds': 24,
        'max-rounds': 2000,
      },
      'speed',
    );
    const start = async (): Promise<{ now: RoundSource; baseline: RoundSource }> => ({
      now: createSide(slowdown),
      baseline: createSide(0),
    });
    return (await compareSides(start, { gate, seed })).gate?.verdict;
  }

  async function countFailures(slowdown: number): Promise<number> {
    let failures = 0;
    for (let seed = 1; seed <= RUNS; seed++) if ((await compare(slowdown, seed)) === 'fail') failures++;
    return failures;
  }

  it('catches a slowdown of 10 % in at least 19 of 20 runs', async () => {
    expect(await countFailures(0.1)).toBeGreaterThanOrEqual(19);
  });

  it('raises an alarm about nothing in at most 1 of 20 runs', async () => {
    expect(await countFailures(0)).toBeLessThanOrEqual(1);
  });
});
