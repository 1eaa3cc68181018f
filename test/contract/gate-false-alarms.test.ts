import { describe, expect, it } from 'vitest';
import { compareSides, type RoundSource } from '../../src/bench/gate/compare-sides.js';
import { parseGate } from '../../src/bench/gate/options.js';
import { signedRankCentre } from '../../src/bench/gate/statistics.js';
import { ENVIRONMENT } from '../helpers/bench-report.js';

const RUNS = 2000;
const NAIVE_RUNS = 300;
const MIN_ROUNDS = 24;
const MAX_ROUNDS = 81;

/** Uniform in 0..1: linear congruential, constants of Numerical Recipes. */
function createUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

/**
 * Log speed of a machine in successive slots of time: jumps with the tails of Student's t of 2 degrees of freedom
 * (no variance) that fade over some ten slots, and now and then a stall.
 */
function createMachine(seed: number): () => number {
  const uniform = createUniform(seed);
  let level = 0;
  return () => {
    const u = uniform();
    level = 0.9 * level + (0.05 * (2 * u - 1)) / Math.sqrt(2 * u * (1 - u));
    return level - (uniform() < 0.05 ? 1 : 0);
  };
}

/** @param luck standard deviation, about, of what a launch of a build keeps */
function createSides(seed: number, luck: number): () => Promise<{ now: RoundSource; baseline: RoundSource }> {
  const machine = createMachine(seed);
  const uniform = createUniform(seed ^ 0x5bd1e995);
  const start = (): RoundSource => {
    const own = luck * (uniform() + uniform() + uniform() - 1.5) * 2;
    return {
      scenarios: ['simulated'],
      environment: ENVIRONMENT,
      measure: async () => ({ decode: 100 * Math.exp(machine() + own) }),
      close: async () => undefined,
      kill: async () => undefined,
    };
  };
  return async () => ({ now: start(), baseline: start() });
}

/** How many of the runs claim that one of two equal builds is slower, or faster. */
async function countAlarms(luck: number): Promise<number> {
  const gate = parseGate(
    {
      'fail-if': ['decode < -0%', 'decode > +0%'],
      'baseline-command': 'other',
      'time-budget': '1h',
      'min-rounds': MIN_ROUNDS,
      'max-rounds': MAX_ROUNDS,
    },
    'speed',
  );
  let alarms = 0;
  for (let seed = 1; seed <= RUNS; seed++) {
    // A clock that stands still: launches are as short as they may be.
    const report = await compareSides(createSides(seed, luck), { gate, seed, clock: () => 0 });
    if (report.gate?.verdict === 'fail') alarms++;
  }
  return alarms;
}

describe('a comparison that is looked at again and again', () => {
  it('raises an alarm about equal builds in at most 1 of 20 runs', async () => {
    const alarms = await countAlarms(0);
    expect(alarms).toBeLessThanOrEqual(RUNS / 20);
  });

  it('raises no more when every process has a speed of its own', async () => {
    const alarms = await countAlarms(0.02);
    expect(alarms).toBeLessThanOrEqual(RUNS / 20);
  });

  it('would raise more with the interval of a single look, so that the simulation can fail', () => {
    let alarms = 0;
    for (let seed = 1; seed <= NAIVE_RUNS; seed++) {
      const machine = createMachine(seed);
      const uniform = createUniform(seed);
      const ratios: number[] = [];
      const isAlarm = (): boolean => {
        const [low, high] = signedRankCentre(ratios, 0.05).interval;
        return low > 0 || high < 0;
      };
      for (let pair = 1; pair <= MAX_ROUNDS; pair++) {
        const difference = machine() - machine();
        ratios.push(uniform() < 0.5 ? difference : -difference);
        if (pair >= 6 && pair % 3 === 0 && isAlarm()) {
          alarms++;
          break;
        }
      }
    }
    expect(alarms).toBeGreaterThan(NAIVE_RUNS / 10);
  });
});
