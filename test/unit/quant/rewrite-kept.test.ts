import { describe, expect, it } from 'vitest';
import type { Graph, GraphNode } from '../../../src/graph/ir.js';
import { modelGraph, source, startGraph, K } from './float-graph.js';
import { initializer, quantize } from './rewrite-fixture.js';

function nodeNamed(graph: Graph, name: string): GraphNode {
  const found = graph.nodes.find((node) => node.name === name);
  if (found === undefined)
    throw new Error(`no node ${name} among ${graph.nodes.map((node) => node.name).join(', ')}`);
  return found;
}

describe('weights that stay', () => {
  it('keep their initializer, tied or not', () => {
    const float = modelGraph();
    const { graph, layers } = quantize(float, 'wint8');
    const name = 'model.embed_tokens.weight';
    expect(initializer(graph, name)).toBe(float.initializers.get(name));
    expect(nodeNamed(graph, '/model/embed_tokens/Gather').inputs[0]).toBe(name);
    expect(nodeNamed(graph, '/lm_head/QuantLinear')).toMatchObject({
      inputs: ['x', name, '', ''],
      outputs: ['logits'],
      attributes: { format: { value: 'bfloat16' }, rows: { value: [40] } },
    });
    expect(layers.at(-1)).toMatchObject({
      name: 'model.embed_tokens',
      scheme: 'none',
      bytesAfter: 40 * K * 2,
    });
    expect(initializer(graph, 'model.norm.weight')).toBe(float.initializers.get('model.norm.weight'));
  });

  it('are all there under "none"', () => {
    const float = modelGraph();
    const { graph, layers } = quantize(float, 'none');
    expect(graph.initializers).toEqual(float.initializers);
    expect(graph.nodes.filter(({ opType }) => opType === 'QuantLinear')).toHaveLength(5);
    expect(layers.every(({ bytesBefore, bytesAfter }) => bytesBefore === bytesAfter)).toBe(true);
  });

  it('count as what they are widened to', () => {
    const builder = startGraph();
    const weight = builder.weight('a.weight', [source('a.weight', [16, K])], { as: 'float32' });
    builder.output(
      builder.scope('a').value({
        opType: 'Gemm',
        inputs: ['x', weight],
        output: { dataType: 'float32', shape: ['tokens', 16] },
        attributes: { transB: { type: 'int', value: 1 } },
      }),
    );
    const { graph, layers } = quantize(builder.build(), 'none');
    expect(graph.nodes[0]?.attributes['format']).toEqual({ type: 'string', value: 'float32' });
    expect(layers[0]).toMatchObject({ storedType: 'bfloat16', bytesBefore: 256, bytesAfter: 512 });
  });
});

describe('biases', () => {
  const bias = (dataType: 'bfloat16' | 'float32'): Graph => {
    const builder = startGraph();
    const shared = builder.weight('b', [source('b', [16], dataType)]);
    const weights = ['p', 'q'].map((name) =>
      builder.weight(`${name}.weight`, [source(`${name}.weight`, [16, K])]),
    );
    for (const weight of weights) {
      builder.output(
        builder.scope(weight).value({
          opType: 'Gemm',
          inputs: ['x', weight, shared],
          output: { dataType: 'float32', shape: ['tokens', 16] },
          attributes: { transB: { type: 'int', value: 1 } },
        }),
      );
    }
    return builder.build();
  };

  it('are widened when they are not float32', () => {
    const { graph } = quantize(bias('bfloat16'), 'wint8');
    for (const node of graph.nodes) {
      expect(initializer(graph, node.inputs[3] as string)).toMatchObject({
        dataType: 'float32',
        data: { members: [source('b', [16])] },
      });
    }
  });

  it('are shared as they are when they are', () => {
    const { graph } = quantize(bias('float32'), 'wint8');
    expect(graph.nodes.map(({ inputs }) => inputs[3])).toEqual(['b', 'b']);
  });
});

describe('nodes that cannot be replaced', () => {
  it('stay and are reported with the reason', () => {
    const builder = startGraph();
    const weight = builder.weight('w.weight', [source('w.weight', [K, 16])]);
    const output = { dataType: 'float32', shape: ['tokens', 16] } as const;
    builder.output(builder.scope('w').value({ opType: 'MatMul', inputs: ['x', weight], output }));
    const float = builder.build();
    const { graph, layers } = quantize(float, 'wint8');
    expect(graph.nodes).toEqual(float.nodes);
    expect(graph.initializers).toEqual(float.initializers);
    expect(layers).toMatchObject([
      { name: 'w', node: '/w/MatMul', scheme: 'none', bytesBefore: 256, bytesAfter: 256 },
    ]);
    expect(layers[0]?.reason).toContain('[k, n]');
  });
});

describe('a MatMul of a transposed weight', () => {
  function transposedGraph(exposed: boolean): Graph {
    const builder = startGraph();
    const weight = builder.weight('w.weight', [source('w.weight', [16, K])]);
    const transposed = builder
      .scope('w')
      .value({ opType: 'Transpose', inputs: [weight], output: { dataType: 'bfloat16', shape: [K, 16] } });
    builder.output(
      builder.scope('w').value({
        opType: 'MatMul',
        inputs: ['x', transposed],
        output: { dataType: 'float32', shape: ['tokens', 16] },
      }),
    );
    if (exposed) builder.output(transposed);
    return builder.build();
  }

  it('takes the Transpose with it', () => {
    const { graph } = quantize(transposedGraph(false), 'wint8');
    expect(graph.nodes.map(({ name }) => name)).toEqual(['/w/QuantLinear']);
    expect(graph.nodes[0]?.inputs).toEqual(['x', 'w.weight', 'w.weight.scales', '']);
    expect([...graph.values.keys()].some((name) => name.includes('Transpose'))).toBe(false);
  });

  it('leaves a Transpose that something else reads', () => {
    const { graph } = quantize(transposedGraph(true), 'wint8');
    expect(graph.nodes.map(({ name }) => name)).toEqual(['/w/Transpose', '/w/QuantLinear']);
    expect(graph.nodes[1]?.inputs[1]).toBe('w.weight.wint8');
  });
});
