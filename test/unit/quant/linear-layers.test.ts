import { describe, expect, it } from 'vitest';
import type { GraphBuilder } from '../../../src/graph/builder.js';
import type { Attribute, Graph } from '../../../src/graph/ir.js';
import { findLinearLayers } from '../../../src/quant/linear-layers.js';
import { modelGraph, source, startGraph, K } from './float-graph.js';

const INT = (value: number): Attribute => ({ type: 'int', value });
const TRANSPOSED = { transB: INT(1) };
const OUTPUT = { dataType: 'float32', shape: ['tokens', 16] } as const;

interface Variation {
  readonly opType?: string;
  readonly domain?: string;
  readonly shape?: readonly number[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
  readonly inputs?: (builder: GraphBuilder) => readonly string[];
  readonly weight?: (builder: GraphBuilder) => string;
}

/** One node that reads x and a lazy weight, with something changed. */
function variation({
  opType = 'Gemm',
  domain = '',
  shape = [16, K],
  attributes = TRANSPOSED,
  ...rest
}: Variation): Graph {
  const builder = startGraph();
  const weight = rest.weight?.(builder) ?? builder.weight('w.weight', [source('w.weight', shape)]);
  const [x = 'x', ...others] = rest.inputs?.(builder) ?? [];
  builder.output(
    builder.scope('w').value({ opType, domain, inputs: [x, weight, ...others], output: OUTPUT, attributes }),
  );
  return builder.build();
}

function obstacleOf(graph: Graph): string | undefined {
  const [layer] = findLinearLayers(graph);
  if (layer === undefined) throw new Error('no layer found');
  return layer.obstacle;
}

function transpose(perm?: readonly number[]): (builder: GraphBuilder) => string {
  return (builder) =>
    builder.scope('w').value({
      opType: 'Transpose',
      inputs: [builder.weight('w.weight', [source('w.weight', [16, K])])],
      output: { dataType: 'bfloat16', shape: [K, 16] },
      attributes: perm === undefined ? {} : { perm: { type: 'ints', value: perm } },
    });
}

describe('findLinearLayers', () => {
  it('names layers by their members, their weight and their place', () => {
    const layers = findLinearLayers(modelGraph());
    const attention = 'model.layers.0.self_attn';
    expect(layers).toHaveLength(5);
    expect(layers[0]?.members.map(({ name }) => name)).toEqual(
      ['q_proj', 'k_proj', 'v_proj'].map((name) => `${attention}.${name}`),
    );
    expect(layers[0]?.names).toEqual([`${attention}.qkv_proj`]);
    expect(layers[0]?.bias?.name).toBe(`${attention}.qkv_proj.bias`);
    expect(layers.at(-1)?.names).toEqual(['model.embed_tokens', 'lm_head']);
    expect(layers.map(({ obstacle }) => obstacle)).toEqual(new Array(5).fill(undefined));
  });

  it.each<[string, Variation]>([
    ['a Gemm', {}],
    ['a MatMul of a transposed weight', { opType: 'MatMul', attributes: {}, weight: transpose() }],
    [
      'a MatMul of a weight with its axes swapped',
      { opType: 'MatMul', attributes: {}, weight: transpose([1, 0]) },
    ],
    [
      'alpha and beta of 1',
      {
        attributes: { ...TRANSPOSED, alpha: { type: 'float', value: 1 }, beta: { type: 'float', value: 1 } },
      },
    ],
    ['an absent bias', { inputs: () => ['x', ''] }],
    [
      'a bias of checkpoint bfloat16',
      { inputs: (builder) => ['x', builder.weight('b', [source('b', [16])])] },
    ],
    [
      'a constant bias',
      { inputs: (builder) => ['x', builder.constant('b', 'float32', [16], new Float32Array(16))] },
    ],
  ])('takes %s', (_, change) => {
    expect(obstacleOf(variation(change))).toBeUndefined();
  });

  it.each<[string, Variation]>([
    ['its weight is stored as [k, n], not [n, k]', { attributes: {}, shape: [K, 16] }],
    ['its weight is stored as [k, n], not [n, k]', { opType: 'MatMul', attributes: {}, shape: [K, 16] }],
    ['its weight is stored as [k, n], not [n, k]', { weight: transpose() }],
    ['its weight has shape [2, 16, 8], not [n, k]', { opType: 'MatMul', shape: [2, 16, 8] }],
    [
      'its weight is stored as float64, not as float32, float16, bfloat16',
      { weight: (builder) => builder.weight('w', [source('w', [16, K], 'float64')]) },
    ],
    [
      'its weight is changed while it is read',
      { weight: (builder) => builder.weight('w', [source('w', [16, K])], { as: 'float32', addend: 1 }) },
    ],
    ['its Gemm has transA 1', { attributes: { ...TRANSPOSED, transA: INT(1) } }],
    ['its Gemm has alpha 0.5', { attributes: { ...TRANSPOSED, alpha: { type: 'float', value: 0.5 } } }],
    ['its Gemm has beta 0', { attributes: { ...TRANSPOSED, beta: { type: 'float', value: 0 } } }],
    [
      'its input is bfloat16, not float32',
      { inputs: (builder) => [builder.input('y', 'bfloat16', ['tokens', K])] },
    ],
    [
      'its input has 3 dimensions, not [tokens, k]',
      {
        opType: 'MatMul',
        attributes: {},
        weight: transpose(),
        inputs: (builder) => [builder.input('y', 'float32', ['batch', 'tokens', K])],
      },
    ],
    ['its bias is computed', { inputs: (builder) => ['x', builder.input('y', 'float32', [16])] }],
    [
      'its bias has shape [1], not [16]',
      { inputs: (builder) => ['x', builder.constant('b', 'float32', [1], new Float32Array(1))] },
    ],
    [
      'its bias has shape [1, 16], not [16]',
      { inputs: (builder) => ['x', builder.constant('b', 'float32', [1, 16], new Float32Array(16))] },
    ],
    [
      'its bias is float16, not float32',
      { inputs: (builder) => ['x', builder.constant('b', 'float16', [16], new Uint16Array(16))] },
    ],
  ])('cannot take: %s', (expected, change) => {
    expect(obstacleOf(variation(change))).toBe(expected);
  });

  it('trusts a Gemm whose input shape is not known, and no MatMul', () => {
    const shapeless = (change: Variation): Graph => ({ ...variation(change), inputs: [] });
    expect(obstacleOf(shapeless({}))).toBeUndefined();
    expect(obstacleOf(shapeless({ opType: 'MatMul', attributes: {}, weight: transpose() }))).toBe(
      'the shape of its input is not known',
    );
  });

  it('leaves other nodes and other operands alone', () => {
    const none: readonly Variation[] = [
      { opType: 'Mul' },
      {
        opType: 'MatMul',
        weight: (builder) => builder.constant('c', 'float32', [K, 16], new Float32Array(K * 16)),
      },
      { opType: 'MatMul', weight: (builder) => builder.input('y', 'float32', [K, 16]) },
      { opType: 'MatMul', weight: transpose([0, 1]) },
    ];
    for (const change of none) expect(findLinearLayers(variation(change))).toEqual([]);
    const graph = variation({});
    const foreign = { ...graph, nodes: graph.nodes.map((node) => ({ ...node, domain: 'com.example' })) };
    expect(findLinearLayers(foreign)).toEqual([]);
    const weight = {
      name: 'w.weight',
      dataType: 'float32',
      shape: [16, K],
      data: { kind: 'weight', members: [] },
    } as const;
    expect(findLinearLayers({ ...graph, initializers: new Map([['w.weight', weight]]) })).toEqual([]);
  });
});
