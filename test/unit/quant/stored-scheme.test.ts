import { describe, expect, it } from 'vitest';
import type { Graph, GraphNode, StoredFormat, StoredWeight } from '../../../src/graph/ir.js';
import { findGraphProblem } from '../../../src/graph/validate.js';
import { makePlan } from '../../../src/quant/plan.js';
import { precisionName } from '../../../src/quant/precision.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { quantizeGraph } from '../../../src/quant/rewrite.js';
import type { QuantizedGraph } from '../../../src/quant/rewrite.js';
import { formatOfScheme, schemeOfStored } from '../../../src/quant/stored-scheme.js';
import { addGemm, source, startGraph, K } from './float-graph.js';

const FP8: StoredFormat = {
  native: { format: 'e4m3', groupN: 0, groupK: 0 },
  activation: 'e4m3_static',
  activationScale: 0.25,
};
const SHUFFLED: StoredFormat = {
  native: { format: 'int4', groupN: 1, groupK: 32, asymmetric: true },
  activation: 'none',
  columnOrder: Int32Array.of(7, 6, 5, 4, 3, 2, 1, 0),
};

function stored(format: StoredFormat): StoredWeight {
  return { method: 'gptq', scheme: 'a name', format } as StoredWeight;
}

/** q, k and v of these formats, fused. */
function rewrite(formats: readonly (StoredFormat | undefined)[]): QuantizedGraph {
  const builder = startGraph();
  const members = formats.map((format, index) => ({
    ...source(`layer.${'qkv'[index]}_proj.weight`, [16, K]),
    ...(format === undefined ? {} : { stored: stored(format) }),
  }));
  builder.output(addGemm(builder, { module: 'layer.qkv_proj', members }));
  const graph: Graph = builder.build();
  const plan = makePlan({ graph, scheme: resolveScheme('none') });
  const result = quantizeGraph(graph, plan, { compute: 'float32' });
  expect(findGraphProblem(result.graph)).toBeUndefined();
  return result;
}

function attribute(node: GraphNode | undefined, name: string): unknown {
  return node?.attributes[name]?.value;
}

describe('members that are stored quantized', () => {
  it('are one layer when their format is one object', () => {
    const { graph } = rewrite([FP8, FP8, FP8]);
    const [node, ...others] = graph.nodes;
    expect(others).toEqual([]);
    expect(node).toMatchObject({ opType: 'QuantLinear', domain: 'fdq' });
    expect(attribute(node, 'rows')).toEqual([16, 16, 16]);
    expect(attribute(node, 'activation')).toBe('e4m3_static');
    expect(attribute(node, 'activation_scale')).toBe(0.25);
    // One scale of each tensor: fusing them loses none.
    expect(graph.initializers.get('layer.qkv_proj.weight.scales')?.shape).toEqual([3]);
  });

  it('are layers of their own where static scales differ, behind a Concat', () => {
    const { graph, layers } = rewrite([FP8, { ...FP8, activationScale: 0.5 }, undefined]);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual([
      'QuantLinear',
      'QuantLinear',
      'QuantLinear',
      'Concat',
    ]);
    expect(graph.nodes.map((node) => attribute(node, 'activation_scale')).slice(0, 2)).toEqual([0.25, 0.5]);
    expect(layers.map(({ scheme }) => scheme)).toEqual(['a name', 'a name', 'none']);
  });

  it('take the columns of x in the order of their codes', () => {
    const { graph } = rewrite([SHUFFLED, SHUFFLED, SHUFFLED]);
    const [gather, linear] = graph.nodes;
    expect(gather).toMatchObject({ opType: 'Gather', domain: '' });
    expect(attribute(gather, 'axis')).toBe(1);
    expect(linear?.inputs[0]).toBe(gather?.outputs[0]);
    const order = graph.initializers.get(gather?.inputs[1] ?? '');
    expect(order).toMatchObject({ dataType: 'int32', shape: [K] });
    const bytes = order?.data.kind === 'inline' ? order.data.bytes : new Uint8Array();
    expect(Buffer.from(bytes).readInt32LE(0)).toBe(7);
    expect(linear?.inputs.at(-1)).toBe('layer.qkv_proj.weight.zero_points');
    expect(graph.initializers.get('layer.qkv_proj.weight.zero_points')).toMatchObject({ dataType: 'int8' });
  });

  it('have an order of columns each where those differ', () => {
    const { graph } = rewrite([
      SHUFFLED,
      { ...SHUFFLED, columnOrder: Int32Array.of(1, 0, 2, 3, 4, 5, 6, 7) },
    ]);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual([
      'Gather',
      'QuantLinear',
      'Gather',
      'QuantLinear',
      'Concat',
    ]);
    expect(new Set(graph.nodes.flatMap(({ outputs }) => outputs)).size).toBe(5);
  });
});

describe('schemeOfStored', () => {
  it('dequantizes with zero points, columns in the order of x', () => {
    const scheme = schemeOfStored(stored(SHUFFLED));
    const codes = Uint8Array.of(0x10, 0x32, 0x54, 0x76); // 0 .. 7
    const parts = { codes, scales: Float32Array.of(0.5), zeroPoints: Int8Array.of(-2) };
    const values = scheme.dequantize({ name: 'w', dataType: 'bfloat16', shape: [1, K] }, parts);
    expect([...values]).toEqual([4.5, 4, 3.5, 3, 2.5, 2, 1.5, 1]);
  });

  it('quantizes nothing', () => {
    const scheme = schemeOfStored(stored(FP8));
    const tensor = { name: 'w', dataType: 'bfloat16', shape: [16, K] } as const;
    expect(scheme.accepts(tensor)).toMatch(/^is not/);
    expect(() => scheme.quantize(tensor, { firstRow: 0, bytes: new Uint8Array() })).toThrow(
      /stored quantized/,
    );
    // A panel of 16 rows by 64 columns and one scale.
    expect(scheme.bytes(tensor)).toBe(16 * 64 + 4);
  });
});

describe('formatOfScheme', () => {
  it.each([
    ['wint4:g128', 'W4A16'],
    ['wint4:g32:asymmetric:act-order', 'W4A16'],
    ['wint4:g256', 'W4A16'],
    ['w8a8:static', 'W8A8'],
    ['fp8_per_channel', 'Wfp8Afp8'],
    ['fp8_per_channel:weight-only', 'Wfp8A16'],
    ['block_wise_fp8:e4m3_token', 'Wfp8Afp8'],
    ['none', 'W16A16'],
  ])('%s is %s', (scheme, precision) => {
    expect(precisionName(formatOfScheme(scheme))).toBe(precision);
  });
});
