import { describe, expect, it } from 'vitest';
import type { Attribute, DataType, Graph, GraphNode, Initializer } from '../../../src/graph/ir.js';
import { byteLengthOf } from '../../../src/graph/data-types.js';
import { describeOnnx } from '../../../src/inspect/describe-onnx.js';
import type { LayerRow } from '../../../src/inspect/report.js';

function weight(name: string, dataType: DataType, shape: readonly number[]): Initializer {
  return {
    name,
    dataType,
    shape,
    data: { kind: 'inline', bytes: new Uint8Array(byteLengthOf(dataType, shape)) },
  };
}

function node(opType: string, inputs: readonly string[], extra: Partial<GraphNode> = {}): GraphNode {
  return {
    name: `/${opType}`,
    opType,
    domain: '',
    inputs,
    outputs: [`${opType}_out`],
    attributes: {},
    ...extra,
  };
}

const ints = (values: Readonly<Record<string, number>>): Readonly<Record<string, Attribute>> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [key, { type: 'int', value } as const]));

function describeNodes(
  nodes: readonly GraphNode[],
  initializers: readonly Initializer[],
): ReturnType<typeof describeOnnx> {
  const graph: Graph = {
    name: 'g',
    opsets: new Map([['', 21]]),
    inputs: [],
    outputs: [],
    nodes,
    initializers: new Map(initializers.map((each) => [each.name, each])),
    values: new Map(),
    metadata: new Map(),
  };
  return describeOnnx(graph, { reference: 'm.onnx', path: '/m.onnx' }, 'avx2');
}

const MS = { domain: 'com.microsoft' };

describe('layers of ONNX models', () => {
  it.each<[string, GraphNode[], Initializer[], Partial<LayerRow>]>([
    [
      'MatMulNBits',
      [
        node('MatMulNBits', ['x', 'l.q_proj.weight', 's', 'z'], {
          ...MS,
          attributes: ints({ K: 64, N: 8, bits: 4, block_size: 32, accuracy_level: 4 }),
        }),
      ],
      [
        weight('l.q_proj.weight', 'uint8', [8, 2, 16]),
        weight('s', 'float32', [16]),
        weight('z', 'uint8', [8]),
      ],
      {
        name: 'l.q_proj',
        shape: [8, 64],
        scheme: 'MatMulNBits int4, groups of 32, zero points',
        precision: 'W4A8',
        bytesAfter: 256 + 64 + 8,
      },
    ],
    [
      'GatherBlockQuantized',
      [
        node('GatherBlockQuantized', ['emb', 'ids', 's'], {
          ...MS,
          attributes: ints({ block_size: 16, bits: 4 }),
        }),
      ],
      [weight('emb', 'uint8', [10, 16]), weight('s', 'float16', [10, 2])],
      {
        shape: [10, 32],
        scheme: 'GatherBlockQuantized int4, groups of 16',
        precision: 'W4A16',
        bytesAfter: 200,
      },
    ],
    [
      'QMoE',
      [
        node('QMoE', ['x', 'router', 'fc1', 's1', '', 'fc2', 's2'], {
          ...MS,
          attributes: ints({ expert_weight_bits: 8, k: 2 }),
        }),
      ],
      [
        weight('fc1', 'uint8', [4, 6, 32]),
        weight('s1', 'float32', [4, 6]),
        weight('fc2', 'uint8', [4, 32, 6]),
        weight('s2', 'float32', [4, 32]),
      ],
      {
        kind: 'QMoE',
        name: 'fc1',
        shape: [4, 6, 32],
        scheme: 'QMoE int8, a scale a row',
        bytesAfter: 768 + 96,
      },
    ],
    [
      'DequantizeLinear and Transpose before MatMul',
      [
        node('DequantizeLinear', ['w', 's'], { attributes: ints({ axis: 0 }) }),
        node('Transpose', ['DequantizeLinear_out']),
        node('MatMul', ['x', 'Transpose_out']),
      ],
      [weight('w', 'int8', [6, 16]), weight('s', 'float32', [6])],
      {
        kind: 'MatMul',
        shape: [6, 16],
        scheme: 'QDQ int8, a scale a channel',
        precision: 'W8A16',
        bytesAfter: 120,
      },
    ],
    [
      'QDQ on both sides of Gemm',
      [
        node('DequantizeLinear', ['xq', 'xs', 'xz'], { outputs: ['xd'], name: 'a' }),
        node('DequantizeLinear', ['w', 's', 'z'], {
          outputs: ['wd'],
          name: 'b',
          attributes: ints({ block_size: 8 }),
        }),
        node('Gemm', ['xd', 'wd'], { attributes: ints({ transB: 1 }) }),
      ],
      [weight('w', 'int4', [6, 16]), weight('s', 'float32', [6, 2]), weight('z', 'int4', [6, 2])],
      { shape: [6, 16], scheme: 'QDQ int4, groups of 8, zero points', precision: 'W4A4' },
    ],
    [
      'MatMulInteger',
      [node('MatMulInteger', ['x', 'w', 'xz', 'z'])],
      [weight('w', 'int8', [16, 6]), weight('z', 'int8', [6])],
      { shape: [6, 16], scheme: 'MatMulInteger int8', precision: 'W8A8', bytesAfter: 102 },
    ],
    [
      'a float MatMul',
      [node('MatMul', ['x', 'w'])],
      [weight('w', 'float16', [16, 6])],
      { shape: [6, 16], scheme: 'none', storedType: 'float16', kernel: 'ONNX Runtime MatMul' },
    ],
    [
      "fdq's own",
      [
        node('QuantLinear', ['x', 'w', 'w.scales', ''], {
          domain: 'fdq',
          attributes: {
            ...ints({ k: 64, group_n: 1, group_k: 0 }),
            rows: { type: 'ints', value: [16] },
            format: { type: 'string', value: 'int4' },
            activation: { type: 'string', value: 'none' },
            compute: { type: 'string', value: 'float32' },
          },
        }),
      ],
      [weight('w', 'int4', [1, 16, 64]), weight('w.scales', 'float32', [1, 1, 16])],
      {
        shape: [16, 64],
        scheme: 'wint4',
        precision: 'W4A16',
        kernel: 'fdq avx2: int4 × float32',
        bytesAfter: 576,
      },
    ],
  ])('%s', (_, nodes, initializers, expected) => {
    const report = describeNodes(nodes, initializers);
    expect(report.layers[0]).toMatchObject(expected);
    const all = initializers.reduce((sum, { dataType, shape }) => sum + byteLengthOf(dataType, shape), 0);
    expect(report.totals).toMatchObject({ bytesBefore: all, bytesAfter: all });
  });

  it('takes the name of the node where that of the weight says nothing', () => {
    const { layers } = describeNodes(
      [node('MatMul', ['x', 'onnx::MatMul_12'], { name: '/mlp/MatMul' })],
      [weight('onnx::MatMul_12', 'float32', [4, 4])],
    );
    expect(layers[0]?.name).toBe('/mlp/MatMul');
  });

  it('ends at values that are computed, also in circles of names', () => {
    const { layers } = describeNodes(
      [node('Transpose', ['Transpose_out']), node('MatMul', ['x', 'Transpose_out'])],
      [],
    );
    expect(layers).toEqual([]);
  });

  it('are found in bodies, with the matrices of the graphs around them', () => {
    const body = {
      name: 'b',
      inputs: [],
      outputs: [{ name: 'MatMul_out' }],
      nodes: [node('MatMul', ['x', 'w']), node('MatMul', ['x', 'own'], { name: '/2', outputs: ['other'] })],
      initializers: new Map([['own', weight('own', 'float32', [4, 2])]]),
      values: new Map(),
    };
    const branch = node('If', ['c'], { attributes: { then_branch: { type: 'graph', value: body } } });
    const { layers, model, others } = describeNodes(
      [branch, node('MatMul', ['x', 'w'], { name: '/3' })],
      [weight('w', 'float32', [2, 3]), weight('table', 'float32', [7])],
    );
    expect(layers.map(({ name, shape }) => [name, shape])).toEqual([
      ['w', [3, 2]],
      ['w', [3, 2]],
      ['own', [2, 4]],
    ]);
    expect(model.storedBytes).toBe(24 + 28 + 32);
    expect(others).toMatchObject({ tensors: 1, bytesAfter: 28 });
  });
});
