import { describe, expect, it } from 'vitest';

import type { Graph } from '../../../src/graph/ir.js';
import { findGraphProblem } from '../../../src/graph/validate.js';
import { sampleGraph } from './sample-graph.js';

const graph = sampleGraph();
const [scale, gemm] = graph.nodes as [Graph['nodes'][number], Graph['nodes'][number]];
const [x] = graph.inputs as [Graph['inputs'][number]];
const factors = graph.initializers.get('/model/layers.3/factors') as NonNullable<
  ReturnType<Graph['initializers']['get']>
>;

function withInitializer(name: string, changes: object): Graph {
  return {
    ...graph,
    initializers: new Map([...graph.initializers, [name, { ...factors, name, ...changes }]]),
  };
}

describe('findGraphProblem', () => {
  it('finds nothing in a valid graph', () => {
    expect(findGraphProblem(graph)).toBeUndefined();
  });

  const broken: Record<string, [Graph, RegExp]> = {
    'an input listed twice': [{ ...graph, inputs: [x, x] }, /Input "x" is defined twice/],
    'an initializer named like an input': [
      withInitializer('x', {}),
      /Initializer "x" has the name of an input/,
    ],
    'an initializer under another name': [
      { ...graph, initializers: new Map([...graph.initializers, ['z', factors]]) },
      /is listed under another name/,
    ],
    'an impossible shape': [withInitializer('z', { shape: [-1] }), /impossible shape \[-1\]/],
    'bytes that do not fit the shape': [withInitializer('z', { shape: [3] }), /needs 12 bytes but has 8/],
    'external bytes that do not fit the shape': [
      withInitializer('z', { data: { kind: 'external', file: 'f', offset: 0, byteLength: 9 } }),
      /needs 8 bytes but has 9/,
    ],
    'nodes in the wrong order': [
      { ...graph, nodes: [gemm, scale] },
      /reads "\/model\/layers.3\/Scale_output_0"/,
    ],
    'a node name used twice': [
      { ...graph, nodes: [scale, { ...gemm, name: scale.name }] },
      /Node name .* is used twice/,
    ],
    'a value defined twice': [
      { ...graph, nodes: [scale, { ...gemm, outputs: scale.outputs }] },
      /Value "\/model\/layers.3\/Scale_output_0" of node .* is defined twice/,
    ],
    'a domain without a version': [{ ...graph, opsets: new Map([['', 21]]) }, /is of domain "fdq"/],
    'an output nothing defines': [{ ...graph, nodes: [scale] }, /Output "y" is not defined/],
    'an output listed twice': [
      { ...graph, outputs: [...graph.outputs, ...graph.outputs] },
      /Output "y" is listed twice/,
    ],
  };
  for (const [name, [candidate, problem]] of Object.entries(broken)) {
    it(`names ${name}`, () => {
      expect(findGraphProblem(candidate)).toMatch(problem);
    });
  }
});
