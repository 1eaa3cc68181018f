import { describe, expect, it } from 'vitest';
import type { SpeedOptions } from '../../../../src/bench/speed/options.js';
import { planSpeed } from '../../../../src/bench/speed/plan.js';
import { measureSpeed, type SpeedMachine, type SpeedObserver } from '../../../../src/bench/speed/run.js';
import { UserError } from '../../../../src/errors.js';
import { fixtureFolder } from '../../../helpers/fixture-model.js';

const OPTIONS: SpeedOptions = {
  model: fixtureFolder('qwen3'),
  locate: { offline: true },
  dtype: 'auto',
  isa: 'scalar',
  quantization: {},
  schemes: ['none', 'wint8'],
  kvCacheDtypes: ['auto'],
  threads: [1],
  promptTokens: [8],
  steps: [4],
  depths: [0],
  sequences: [1, 2],
  repetitions: 3,
  utilization: 0.9,
};

const SILENT: SpeedObserver = {
  planned: () => undefined,
  begin: () => undefined,
  update: () => undefined,
  end: () => undefined,
};
const SECONDS = { locate: 0, plan: 0, quantize: 1, build: 0, warm_up: 0 };

interface FakeMachine extends SpeedMachine {
  readonly log: string[];
}

/** Every round decodes one token a second more than the one before; `onRound` may throw. */
function createMachine(onRound: (count: number) => void = () => undefined): FakeMachine {
  const log: string[] = [];
  let count = 0;
  let bandwidth = 0;
  return {
    log,
    start: ({ load }) => {
      log.push(`start ${load.quantization ?? ''}`);
      return Promise.resolve({
        seconds: SECONDS,
        measure: async () => {
          count++;
          onRound(count);
          const decode = { tokensPerSecond: count, gapsMs: [1] };
          return { sample: { prefill: { tokensPerSecond: 1, ttftMs: 1 }, decode }, peakRssBytes: 1 };
        },
        close: () => Promise.resolve(void log.push('close')),
      });
    },
    readBandwidth: () => Promise.resolve((bandwidth += 1000)),
  };
}

const never = new AbortController().signal;

describe('measureSpeed', () => {
  it('loads each model once, and leaves the warm-up out', async () => {
    const machine = createMachine();
    const report = await measureSpeed(OPTIONS, SILENT, never, machine);
    expect(machine.log).toEqual(['start none', 'close', 'start wint8', 'close']);
    expect(report.scenarios.map(({ name }) => name)).toEqual([
      'none kv=bfloat16 t=1 p=8 n=4 d=0 b=1',
      'none kv=bfloat16 t=1 p=8 n=4 d=0 b=2',
      'wint8 kv=bfloat16 t=1 p=8 n=4 d=0 b=1',
      'wint8 kv=bfloat16 t=1 p=8 n=4 d=0 b=2',
    ]);
    const decode = report.scenarios.map(({ metrics }) => metrics.find(({ id }) => id === 'decode')?.samples);
    expect(decode).toEqual([
      [2, 3, 4],
      [6, 7, 8],
      [10, 11, 12],
      [14, 15, 16],
    ]);
    expect(report).toMatchObject({
      kind: 'speed',
      partial: false,
      gate: null,
      environment: { isa: 'scalar' },
    });
  });

  it('takes the better bandwidth of before and after each repetition', async () => {
    const report = await measureSpeed({ ...OPTIONS, schemes: ['none'] }, SILENT, never, createMachine());
    const samples = report.scenarios.map(
      ({ metrics }) => metrics.find(({ id }) => id === 'read_bandwidth')?.samples,
    );
    expect(samples).toEqual([
      [2000, 3000, 4000],
      [6000, 7000, 8000],
    ]);
  });

  it('repeats as long as it is asked to', async () => {
    const seen: number[] = [];
    const wantsMore: SpeedObserver['wantsMore'] = (report, rounds) => {
      seen.push(rounds);
      expect(report.scenarios).toHaveLength(1);
      return rounds < 5;
    };
    const options = { ...OPTIONS, schemes: ['none'], sequences: [1] };
    const report = await measureSpeed(options, { ...SILENT, wantsMore }, never, createMachine());
    expect(seen).toEqual([3, 4, 5]);
    expect(report.scenarios[0]?.metrics[0]?.samples).toHaveLength(5);
  });

  it('reports what was measured when it is interrupted', async () => {
    const controller = new AbortController();
    const machine = createMachine((count) => {
      if (count < 7) return;
      controller.abort(new UserError('aborted', 'Interrupted.'));
      throw controller.signal.reason as Error;
    });
    const report = await measureSpeed(OPTIONS, SILENT, controller.signal, machine);
    expect(report.partial).toBe(true);
    expect(report.scenarios.map(({ metrics }) => metrics[0]?.samples.length)).toEqual([3, 1]);
    expect(machine.log).toEqual(['start none', 'close']);
  });

  it('fails with what fails, and closes the model', async () => {
    const machine = createMachine((count) => {
      if (count === 3) throw new UserError('runtime_failed', 'broken');
    });
    await expect(measureSpeed(OPTIONS, SILENT, never, machine)).rejects.toThrow('broken');
    expect(machine.log).toEqual(['start none', 'close']);
  });
});

describe('planSpeed', () => {
  it('measures what has two names once', async () => {
    const plan = await planSpeed({
      ...OPTIONS,
      schemes: ['wint8', 'W8A16'],
      kvCacheDtypes: ['auto', 'bfloat16'],
    });
    expect(plan.models.map(({ name }) => name)).toEqual(['wint8 kv=bfloat16 t=1']);
    expect(plan.warnings).toContain('wint8 kv=bfloat16 t=1 was asked for twice and is measured once.');
  });

  it('tells objects and switches apart in names', async () => {
    const schemes = [
      '{"quantization":"wint8","ignore":["re:.*o_proj"]}',
      '{"quantization":"wint8","ignore":["re:.*q_proj"]}',
    ];
    const plan = await planSpeed({
      ...OPTIONS,
      schemes,
      dtype: 'float32',
      quantization: { quantizeLmHead: true },
    });
    const names = plan.models.map(({ name }) => name);
    expect(new Set(names).size).toBe(2);
    for (const name of names)
      expect(name).toMatch(/^wint8#[0-9a-f]{8}\+lm_head kv=float32 dtype=float32 t=1$/);
  });

  it('needs room for every sequence before a weight is read', async () => {
    await expect(planSpeed({ ...OPTIONS, utilization: 0.001 })).rejects.toMatchObject({
      code: 'out_of_memory',
      suggestions: [expect.stringContaining('-b'), expect.anything(), expect.anything()] as unknown,
    });
  });

  it('refuses sequences that the model cannot address', async () => {
    await expect(planSpeed({ ...OPTIONS, depths: [1 << 20] })).rejects.toMatchObject({ code: 'usage' });
  });
});
