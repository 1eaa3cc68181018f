import { describe, expect, it } from 'vitest';
import { intAttribute } from '../../../src/graph/builder.js';
import type { Graph, GraphNode } from '../../../src/graph/ir.js';
import { findGraphProblem } from '../../../src/graph/validate.js';
import { findEmbeddings } from '../../../src/quant/embeddings.js';
import { makePlan } from '../../../src/quant/plan.js';
import type { PlanRequest } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { quantizeGraph } from '../../../src/quant/rewrite.js';
import type { QuantizedGraph } from '../../../src/quant/rewrite.js';
import { addEmbedding, addGemm, source, startGraph, tiedGraph, K } from './float-graph.js';

const NAME = 'model.embed_tokens.weight';

function quantize(
  graph: Graph,
  scheme: string,
  rules: Partial<Omit<PlanRequest, 'graph' | 'scheme'>>,
): QuantizedGraph {
  const before = structuredClone(graph);
  const plan = makePlan({ graph, scheme: resolveScheme(scheme), ...rules });
  const result = quantizeGraph(graph, plan, { compute: 'float32' });
  expect(graph).toEqual(before);
  expect(findGraphProblem(result.graph)).toBeUndefined();
  return result;
}

/** An embedding and a head of its own. */
function untiedGraph(): Graph {
  const builder = startGraph();
  const x = addEmbedding(builder);
  const members = [source('lm_head.weight', [40, K])];
  builder.output(addGemm(builder, { module: 'lm_head', x, members }));
  return builder.build();
}

const listNodes = (graph: Graph): readonly string[] =>
  graph.nodes.map(({ opType, name }) => `${opType} ${name}`);

describe('an embedding that gets a scheme', () => {
  const { graph, layers } = quantize(untiedGraph(), 'wint4:g32', { quantizeEmbeddings: true });

  it('becomes one QuantGather that gives float32', () => {
    expect(listNodes(graph)).toEqual([
      'QuantGather /model/embed_tokens/QuantGather',
      'QuantLinear /lm_head/QuantLinear',
    ]);
    expect(graph.nodes[0]).toEqual({
      name: '/model/embed_tokens/QuantGather',
      domain: 'fdq',
      opType: 'QuantGather',
      inputs: ['input_ids', NAME, `${NAME}.scales`],
      outputs: ['/model/embed_tokens/Cast_output_0'],
      attributes: {
        format: { type: 'string', value: 'int4' },
        k: { type: 'int', value: K },
        rows: { type: 'ints', value: [40] },
        group_n: { type: 'int', value: 1 },
        group_k: { type: 'int', value: 32 },
        block_k: { type: 'int', value: 0 },
        block_type: { type: 'string', value: '' },
      },
    });
    expect(graph.values.get('/model/embed_tokens/Cast_output_0')).toMatchObject({ dataType: 'float32' });
    expect(graph.values.has('/model/embed_tokens/Gather_output_0')).toBe(false);
  });

  it('is reported as it is', () => {
    expect(layers.map(({ name, scheme, node }) => `${name} ${scheme} ${node}`)).toEqual([
      'model.embed_tokens wint4:g32 /model/embed_tokens/QuantGather',
      'lm_head none /lm_head/QuantLinear',
    ]);
    expect(layers[0]?.bytesAfter).toBe(48 * 32 * 0.5 * 2 + 48 * 4);
  });
});

it('leaves an embedding that nothing asks for', () => {
  const float = untiedGraph();
  const { graph, layers } = quantize(float, 'wint8', { quantizeLmHead: true });
  expect(listNodes(graph)).toEqual([
    'Gather /model/embed_tokens/Gather',
    'Cast /model/embed_tokens/Cast',
    'QuantLinear /lm_head/QuantLinear',
  ]);
  expect(graph.initializers.get(NAME)).toBe(float.initializers.get(NAME));
  expect(layers.map(({ name, scheme }) => `${name} ${scheme}`)).toEqual([
    'model.embed_tokens none',
    'lm_head wint8',
  ]);
  expect(layers[0]).toMatchObject({ bytesBefore: 40 * K * 2, bytesAfter: 40 * K * 2 });
});

describe('an embedding tied to the head', () => {
  it.each([{ quantizeLmHead: true }, { quantizeEmbeddings: true }])(
    'shares one set of initializers with it when %j',
    (rules) => {
      const { graph, layers } = quantize(tiedGraph(), 'wint8', rules);
      expect(graph.nodes.map(({ opType, inputs }) => `${opType} ${inputs.slice(1, 3).join(' ')}`)).toEqual([
        `QuantGather ${NAME} ${NAME}.scales`,
        `QuantLinear ${NAME} ${NAME}.scales`,
      ]);
      expect([...graph.initializers.keys()]).toEqual([NAME, `${NAME}.scales`]);
      expect(layers.map(({ name, scheme, node }) => `${name} ${scheme} ${node}`)).toEqual([
        'model.embed_tokens wint8 /lm_head/QuantLinear',
      ]);
    },
  );

  it('keeps one float tensor otherwise', () => {
    const { graph } = quantize(tiedGraph(), 'wint8', {});
    expect([...graph.initializers.keys()]).toEqual([NAME]);
    expect(graph.nodes.map(({ opType }) => opType)).toEqual(['Gather', 'Cast', 'QuantLinear']);
  });

  it('may be gathered by more than one node', () => {
    const float = tiedGraph();
    const [gather, cast] = float.nodes as readonly [GraphNode, GraphNode, ...GraphNode[]];
    const again = { ...gather, name: '/again/Gather', outputs: ['rows'] };
    const widened = { ...cast, name: '/again/Cast', inputs: ['rows'], outputs: ['widened'] };
    const graph = {
      ...float,
      nodes: [...float.nodes, again, widened],
      outputs: [...float.outputs, { name: 'widened', dataType: 'float32' as const, shape: ['tokens', K] }],
    };
    const result = quantize(graph, 'wint8', { quantizeEmbeddings: true }).graph;
    expect(listNodes(result)).toEqual([
      'QuantGather /model/embed_tokens/QuantGather',
      'QuantLinear /lm_head/QuantLinear',
      'QuantGather /again/QuantGather',
    ]);
    expect(result.initializers.size).toBe(2);
  });
});

describe('findEmbeddings', () => {
  const obstacleOf = (change: (graph: Graph) => Graph): string | undefined => {
    const [table] = findEmbeddings(change(untiedGraph()));
    return table?.obstacle;
  };
  const withGather =
    (change: Partial<GraphNode>) =>
    (graph: Graph): Graph => ({
      ...graph,
      nodes: graph.nodes.map((node) => (node.opType === 'Gather' ? { ...node, ...change } : node)),
    });
  const withIds =
    (change: Partial<Graph['inputs'][number]>) =>
    (graph: Graph): Graph => ({
      ...graph,
      inputs: graph.inputs.map((input) => (input.name === 'input_ids' ? { ...input, ...change } : input)),
    });

  it('finds nothing to stop the usual form', () => {
    expect(obstacleOf((graph) => graph)).toBeUndefined();
    expect(findEmbeddings(untiedGraph())[0]?.names).toEqual(['model.embed_tokens']);
  });

  it.each<[string, (graph: Graph) => Graph]>([
    ['its Gather has axis 1', withGather({ attributes: { axis: intAttribute(1) } })],
    ['its ids are int32, not int64', withIds({ dataType: 'int32' })],
    ['its ids have 2 dimensions, not [tokens]', withIds({ shape: ['batch', 'tokens'] })],
    ['the shape of its ids is not known', (graph) => ({ ...graph, inputs: graph.inputs.slice(0, 1) })],
    [
      'its rows are read as they are stored',
      (graph) => ({
        ...graph,
        outputs: [
          ...graph.outputs,
          { name: '/model/embed_tokens/Gather_output_0', dataType: 'bfloat16', shape: ['tokens', K] },
        ],
      }),
    ],
    [
      'its rows are read as they are stored',
      (graph) => ({ ...graph, nodes: graph.nodes.filter(({ opType }) => opType !== 'Cast') }),
    ],
  ])('says that %s', (obstacle, change) => {
    expect(obstacleOf(change)).toBe(obstacle);
  });

  it('says that a table made of several tensors is none', () => {
    const builder = startGraph();
    const parts = [source('a.weight', [16, K]), source('b.weight', [16, K])];
    builder.output(addEmbedding(builder, builder.weight('c.weight', parts)));
    expect(findEmbeddings(builder.build())[0]?.obstacle).toBe('its weight is 2 tensors');
  });

  it('needs no Cast behind a float32 table', () => {
    const builder = startGraph();
    const ids = builder.input('ids', 'int64', ['tokens']);
    const table = builder.weight('t.weight', [source('t.weight', [16, K], 'float32')]);
    const rows = builder.scope('t').value({
      opType: 'Gather',
      inputs: [table, ids],
      output: { dataType: 'float32', shape: ['tokens', K] },
    });
    builder.output(rows);
    const graph = builder.build();
    expect(findEmbeddings(graph)).toMatchObject([{ cast: undefined, output: rows, obstacle: undefined }]);
    const targets = [{ pattern: 't', scheme: resolveScheme('wint8') }];
    expect(listNodes(quantize(graph, 'none', { targets }).graph)).toEqual(['QuantGather /t/QuantGather']);
  });
});
