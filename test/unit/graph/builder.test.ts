import { describe, expect, it } from 'vitest';

import { BugError } from '../../../src/errors.js';
import { GraphBuilder, floatAttribute } from '../../../src/graph/builder.js';
import { OPSETS, sampleGraph, weightSource } from './sample-graph.js';

const OUTPUT = { dataType: 'float32', shape: [1] } as const;

function createBuilder(): GraphBuilder {
  return GraphBuilder.create('test', OPSETS);
}

describe('GraphBuilder', () => {
  it('names nodes, values and constants by scope and keeps weight names as they are', () => {
    const graph = sampleGraph();
    expect(graph.nodes.map((node) => node.name)).toEqual(['/model/layers.3/Scale', '/model/layers.3/Gemm']);
    expect(graph.nodes[0]?.outputs).toEqual(['/model/layers.3/Scale_output_0']);
    expect([...graph.initializers.keys()]).toEqual(['/model/layers.3/factors', 'w']);
    expect([...graph.values.keys()]).toEqual(['/model/layers.3/Scale_output_0']);
    expect(graph.outputs).toEqual([{ name: 'y', dataType: 'float32', shape: ['tokens', 5] }]);
    expect(graph.metadata).toEqual(new Map([['fdq.scheme', 'none']]));
  });

  it('stacks weight members along axis 0', () => {
    const weight = sampleGraph().initializers.get('w');
    expect(weight).toMatchObject({ dataType: 'bfloat16', shape: [5, 2] });
    expect(weight?.data).toMatchObject({ kind: 'weight', members: [{ name: 'q' }, { name: 'k' }] });
    expect(weight?.data).not.toHaveProperty('addend');
  });

  it('widens 16-bit members on request and carries the addend', () => {
    const builder = createBuilder();
    const members = [weightSource('a', [2]), weightSource('b', [1], { dataType: 'float32' })];
    builder.weight('norm', members, { as: 'float32', addend: 1 });
    expect(builder.build().initializers.get('norm')).toMatchObject({
      dataType: 'float32',
      shape: [3],
      data: { addend: 1 },
    });
  });

  it('makes node names unique and leaves unwanted outputs empty', () => {
    const builder = createBuilder();
    const x = builder.input('x', 'float32', [1]);
    const first = builder.node({ opType: 'Split', inputs: [x], outputs: [OUTPUT, null, OUTPUT] });
    const second = builder.value({ opType: 'Split', inputs: [x], output: OUTPUT });
    expect(first).toEqual(['/Split_output_0', '', '/Split_output_2']);
    expect(second).toBe('/Split_1_output_0');
  });

  it('copies the bytes of a constant, whatever part of a buffer they are', () => {
    const builder = createBuilder();
    const values = Float32Array.of(9, 1, 2);
    builder.constant('c', 'float32', [2], values.subarray(1));
    values[1] = 7;
    const data = builder.build().initializers.get('/c')?.data;
    expect(data?.kind === 'inline' && new Float32Array(data.bytes.buffer)).toEqual(Float32Array.of(1, 2));
  });

  it('rounds float attributes to what a file can hold', () => {
    expect(floatAttribute(0.1)).toEqual({ type: 'float', value: Math.fround(0.1) });
  });

  const mistakes: Record<string, [(builder: GraphBuilder) => unknown, RegExp]> = {
    'an undefined input': [(b) => b.node({ opType: 'Add', inputs: ['z'], outputs: [] }), /"\/Add" reads "z"/],
    'a value defined twice': [
      (b) => [b.input('x', 'bool', []), b.input('x', 'bool', [])],
      /"x" is defined twice/,
    ],
    'an initializer defined twice': [
      (b) => [b.weight('w', [weightSource('a', [1])]), b.weight('w', [weightSource('a', [1])])],
      /Initializer "w" is defined twice/,
    ],
    'a weight without members': [(b) => b.weight('w', []), /"w" has no members/],
    'members of different types': [
      (b) => b.weight('w', [weightSource('a', [1]), weightSource('b', [1], { dataType: 'float16' })]),
      /"w" is bfloat16 but its member "b" is float16/,
    ],
    'a conversion that is not widening': [
      (b) => b.weight('w', [weightSource('a', [1])], { as: 'float16' }),
      /"w" is float16 but its member "a" is bfloat16/,
    ],
    'narrow members of a weight that is float32 by its first': [
      (b) => b.weight('w', [weightSource('a', [1], { dataType: 'float32' }), weightSource('b', [1])]),
      /"w" is float32 but its member "b" is bfloat16/,
    ],
    'members of different widths': [
      (b) => b.weight('w', [weightSource('a', [1, 2]), weightSource('b', [1, 3])]),
      /"a" and "b" of weight "w" cannot be stacked/,
    ],
    'a scalar member': [(b) => b.weight('w', [weightSource('a', [])]), /cannot be stacked/],
    'an output that does not exist': [(b) => b.output('nothing'), /"nothing" is not defined/],
    'a domain without a version': [
      (b) => [b.node({ opType: 'Op', domain: 'other', inputs: [], outputs: [OUTPUT] }), b.build()],
      /domain "other"/,
    ],
    'a constant of the wrong size': [
      (b) => [b.constant('c', 'float32', [2], new Uint8Array(4)), b.build()],
      /"\/c" needs 8 bytes but has 4/,
    ],
  };
  for (const [name, [act, message]] of Object.entries(mistakes)) {
    it(`refuses ${name}`, () => {
      expect(() => act(createBuilder())).toThrow(BugError);
      expect(() => act(createBuilder())).toThrow(message);
    });
  }
});
