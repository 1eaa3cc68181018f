import { describe, expect, it } from 'vitest';
import { allowedCores } from '../../../../src/bench/gate/core-placement.js';
import { compareSides, type RoundSource } from '../../../../src/bench/gate/compare-sides.js';
import { parseGate } from '../../../../src/bench/gate/options.js';
import { ENVIRONMENT } from '../../../helpers/bench-report.js';

const GATE = parseGate(
  {
    'fail-if': ['decode < -5%'],
    'baseline-command': 'other',
    'time-budget': '1h',
    'min-rounds': 24,
    'max-rounds': 24,
  },
  'speed',
);
const NAME = 'a t=1';

/** A build whose log is shared with the other. */
function createSide(name: string, log: string[], place?: RoundSource['place']): RoundSource {
  return {
    scenarios: [NAME],
    environment: ENVIRONMENT,
    measure: async (round) => {
      log.push(round === 0 ? `${name} warms up` : name);
      return { decode: 100 + log.length / 1000 };
    },
    ...(place === undefined ? {} : { place }),
    close: async () => undefined,
    kill: async () => undefined,
  };
}

describe('compareSides', () => {
  it('reports what a scenario is made of, and what was said when it was planned', async () => {
    const log: string[] = [];
    const report = await compareSides(
      async () => ({ now: createSide('now', log), baseline: createSide('baseline', log) }),
      {
        gate: GATE,
        seed: 1,
        plan: new Map([[NAME, { parameters: { scheme: 'wint4', threads: 1 }, threads: 1 }]]),
        warnings: ['Few blocks.'],
      },
    );
    expect(report.scenarios[0]?.parameters).toEqual({ scheme: 'wint4', threads: 1 });
    expect(report.warnings).toEqual(['Few blocks.']);
  });

  it.runIf(allowedCores().length > 1)('keeps both on the same cores, other ones in each launch', async () => {
    const log: string[] = [];
    const placed: Record<string, (readonly number[])[]> = { now: [], baseline: [] };
    const side = (name: string): RoundSource =>
      createSide(name, log, async (cores) => void placed[name]?.push(cores));
    const plan = new Map([[NAME, { parameters: {}, threads: 1 }]]);
    await compareSides(async () => ({ now: side('now'), baseline: side('baseline') }), {
      gate: GATE,
      seed: 1,
      clock: () => 0,
      plan,
    });
    expect(placed['now']).toEqual(placed['baseline']);
    const [all, first, again, second] = placed['now'] ?? [];
    expect([all, again]).toEqual([allowedCores(), allowedCores()]);
    expect(first).toHaveLength(1);
    expect(second).toHaveLength(1);
    expect(second).not.toEqual(first);
  });

  it('goes on with a warning where it may not place them, both on all cores', async () => {
    const log: string[] = [];
    const last = new Map<string, readonly number[]>();
    const side = (name: string): RoundSource =>
      createSide(name, log, async (cores) => {
        if (name === 'baseline' && cores.length === 1) throw new Error('not permitted');
        last.set(name, cores);
      });
    const plan = new Map([[NAME, { parameters: {}, threads: 1 }]]);
    const report = await compareSides(async () => ({ now: side('now'), baseline: side('baseline') }), {
      gate: GATE,
      seed: 1,
      plan,
    });
    expect(report.gate?.verdict).toBe('pass');
    expect(last.get('now')).toEqual(last.get('baseline'));
    expect(report.warnings).toHaveLength(allowedCores().length > 1 ? 1 : 0);
  });
});
