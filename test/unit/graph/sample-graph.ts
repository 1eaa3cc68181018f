import { GraphBuilder, floatAttribute, intAttribute } from '../../../src/graph/builder.js';
import type { Graph, WeightSource } from '../../../src/graph/ir.js';

export const OPSETS = new Map([
  ['', 21],
  ['fdq', 1],
]);

export function weightSource(
  name: string,
  shape: readonly number[],
  overrides: Partial<WeightSource> = {},
): WeightSource {
  const byteLength = 2 * shape.reduce((product, size) => product * size, 1);
  return {
    name,
    dataType: 'bfloat16',
    shape,
    file: '/models/a.safetensors',
    offset: 64,
    byteLength,
    ...overrides,
  };
}

/** x [tokens, 2] → Scale → Gemm with a fused bf16 weight [5, 2] → y. */
export function sampleGraph(): Graph {
  const builder = GraphBuilder.create('sample', OPSETS);
  const x = builder.input('x', 'float32', ['tokens', 2]);
  const scope = builder.scope('model/layers.3');
  const factors = scope.constant('factors', 'float32', [2], Float32Array.of(0.5, 2));
  const scaled = scope.value({
    opType: 'Scale',
    domain: 'fdq',
    inputs: [x, '', factors],
    output: { dataType: 'float32', shape: ['tokens', 2] },
    attributes: {
      epsilon: floatAttribute(0.1),
      layer: intAttribute(-3),
      mode: { type: 'string', value: 'é' },
      sizes: { type: 'ints', value: [1, 2 ** 40] },
      ratios: { type: 'floats', value: [0.5, -2] },
      names: { type: 'strings', value: ['a', ''] },
      fill: {
        type: 'tensor',
        value: { dataType: 'int64', shape: [1], bytes: Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0) },
      },
    },
  });
  const weight = builder.weight('w', [weightSource('q', [3, 2]), weightSource('k', [2, 2])]);
  const y = scope.value({
    opType: 'Gemm',
    inputs: [scaled, weight],
    output: { name: 'y', dataType: 'float32', shape: ['tokens', 5] },
  });
  builder.output(y);
  builder.metadata('fdq.scheme', 'none');
  return builder.build();
}

/** The part of the sample that a file can hold on its own: no lazy weights. */
export function inlineOnly(graph: Graph): Graph {
  const initializers = new Map(
    [...graph.initializers].filter(([, initializer]) => initializer.data.kind === 'inline'),
  );
  const nodes = graph.nodes.filter((node) => node.opType === 'Scale');
  const outputs = [{ name: nodes[0]?.outputs[0] ?? '', dataType: 'float32', shape: ['tokens', 2] } as const];
  return { ...graph, nodes, initializers, outputs, values: new Map() };
}
