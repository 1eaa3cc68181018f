import { describe, expect, it } from 'vitest';
import type { SpeedModel } from '../../../../src/bench/speed/plan.js';
import { toScenario } from '../../../../src/bench/speed/scenario.js';
import { stepBytes, streamedWeightBytes } from '../../../../src/bench/speed/streamed-bytes.js';
import type { Graph, GraphNode, Initializer } from '../../../../src/graph/ir.js';

const what = { promptTokens: 512, steps: 4, depth: 32, sequences: 2 };
const SECONDS = { locate: 1, plan: 2, quantize: 3, build: 4, warm_up: 5 };

function modelOf(streamed: Partial<SpeedModel> = {}): SpeedModel {
  return {
    name: 'wint8 kv=bfloat16 t=2',
    load: {} as SpeedModel['load'],
    threads: 2,
    weightBytes: 1500,
    streamedWeightBytes: 1000,
    kvBytesPerToken: 10,
    parameters: { scheme: 'wint8' },
    ...streamed,
  };
}

describe('stepBytes', () => {
  it('is the weights once and the cache of each sequence', () => {
    // Steps attend to 34, 35, 36 and 37 positions.
    expect(stepBytes(modelOf(), what)).toBe(1000 + 2 * 10 * 35.5);
  });

  it('reads no further back than the window', () => {
    expect(stepBytes(modelOf({ slidingWindow: 35 }), what)).toBe(1000 + (2 * 10 * (34 + 35 + 35 + 35)) / 4);
  });
});

describe('streamedWeightBytes', () => {
  const weight = (name: string, rows: number): [string, Initializer] => [
    name,
    { name, dataType: 'float32', shape: [rows, 8], data: { kind: 'weight', members: [] } } as never,
  ];
  const node = (opType: string, ...inputs: string[]): GraphNode => ({
    name: opType,
    opType,
    domain: '',
    inputs,
    outputs: ['y'],
    attributes: {},
  });
  const initializers = new Map([weight('embedding', 100), weight('layer', 10), weight('head', 50)]);

  it('leaves out a table that is only looked up', () => {
    const nodes = [node('Gather', 'embedding', 'ids'), node('Gemm', 'x', 'layer'), node('Gemm', 'x', 'head')];
    expect(streamedWeightBytes({ nodes, initializers } as unknown as Graph)).toBe((10 + 50) * 8 * 4);
  });

  it('counts an embedding that is the output head as well, once', () => {
    const nodes = [
      node('QuantGather', 'embedding', 'ids'),
      node('Gemm', 'x', 'layer'),
      node('Gemm', 'y', 'layer'),
      node('Gemm', 'x', 'embedding'),
    ];
    expect(streamedWeightBytes({ nodes, initializers } as unknown as Graph)).toBe((100 + 10) * 8 * 4);
  });
});

describe('toScenario', () => {
  const rounds = [8, 12].map((decode, index) => ({
    sample: {
      prefill: { tokensPerSecond: 100 + index, ttftMs: 5 },
      decode: { tokensPerSecond: decode, gapsMs: [1, 2, 3, 4, 5, 6, 7, 100] },
    },
    peakRssBytes: 7000 - index,
    readBandwidth: 17_100,
  }));
  const scenario = toScenario(modelOf(), what, rounds, SECONDS);
  const metric = (id: string) => scenario.metrics.find((candidate) => candidate.id === id);

  it('names what was measured', () => {
    expect(scenario.name).toBe('wint8 kv=bfloat16 t=2 p=512 n=4 d=32 b=2');
    expect(scenario.parameters).toEqual({
      scheme: 'wint8',
      n_prompt: 512,
      n_gen: 4,
      n_depth: 32,
      batch_size: 2,
    });
  });

  it('has a sample for each repetition', () => {
    expect(metric('prefill')?.samples).toEqual([100, 101]);
    expect(metric('decode')).toMatchObject({ value: 10, samples: [8, 12] });
    expect(metric('decode')?.std).toBeCloseTo(Math.sqrt(8), 12);
  });

  it('divides the bytes of a step by what the machine reads', () => {
    // 1710 bytes a step, 4 and 6 steps a second
    expect(metric('bandwidth_share')?.samples[0]).toBeCloseTo((4 * 1710) / 17_100, 12);
    expect(metric('bandwidth_share')?.samples[1]).toBeCloseTo((6 * 1710) / 17_100, 12);
    expect(metric('read_bandwidth')?.value).toBe(17_100);
  });

  it('takes percentiles of the gaps of each repetition, and of all for the distribution', () => {
    expect(metric('itl_p50')?.value).toBeCloseTo(4, 2);
    expect(metric('itl_p90')?.value).toBeCloseTo(100, 1);
    expect(scenario.distributions?.map(({ id, count }) => [id, count])).toEqual([
      ['ttft', 2],
      ['itl', 16],
    ]);
  });

  it('reports load time by phase, and memory', () => {
    expect(metric('load')?.value).toBe(15);
    expect(metric('load_quantize')?.value).toBe(3);
    expect(metric('peak_rss')?.samples).toEqual([7000]);
    expect(metric('weight_bytes')?.value).toBe(1500);
    expect(metric('kv_bytes_per_token')?.value).toBe(10);
  });

  it('leaves out what was not measured', () => {
    const only = rounds.map(({ sample: { decode: _, ...sample }, ...rest }) => ({ ...rest, sample }));
    const half = toScenario(modelOf(), { ...what, steps: 0 }, only, SECONDS);
    const ids = half.metrics.map(({ id }) => id);
    expect(ids).toContain('ttft');
    expect(ids).not.toContain('decode');
    expect(ids).not.toContain('bandwidth_share');
    expect(half.distributions?.map(({ id }) => id)).toEqual(['ttft']);
  });
});
