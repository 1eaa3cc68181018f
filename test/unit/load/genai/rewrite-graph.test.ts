import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Attribute, Graph, GraphNode } from '../../../../src/graph/ir.js';
import { parseModel } from '../../../../src/graph/onnx.js';
import { readGenaiConfig, type GenaiConfig } from '../../../../src/load/genai/genai-config.js';
import { packDecoder } from '../../../../src/load/genai/rewrite-graph.js';
import { writeGenaiModel, type GenaiVariant } from '../../../helpers/genai-model.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

interface Model {
  readonly graph: Graph;
  readonly config: GenaiConfig;
}

async function readModel(name: string, variant: GenaiVariant = {}): Promise<Model> {
  const dir = await createTempDir();
  await writeGenaiModel(name, dir, variant);
  const bytes = await readFile(path.join(dir, 'model.onnx'));
  return { graph: parseModel(bytes, { dir }), config: await readGenaiConfig(dir) };
}

const ATTENTION = '/model/layers.0/attn/GroupQueryAttention';
const SIGMOID = '/model/layers.0/mlp/act_fn/Sigmoid';

/** The graph with one node changed. */
function change(graph: Graph, name: string, patch: (node: GraphNode) => Partial<GraphNode>): Graph {
  return {
    ...graph,
    nodes: graph.nodes.map((node) => (node.name === name ? { ...node, ...patch(node) } : node)),
  };
}

function withAttribute(name: string, value: Attribute): (node: GraphNode) => Partial<GraphNode> {
  return ({ attributes }) => ({ attributes: { ...attributes, [name]: value } });
}

function withInput(index: number, value: string): (node: GraphNode) => Partial<GraphNode> {
  return ({ inputs }) => {
    const padded = [...inputs, ...Array.from({ length: Math.max(0, index + 1 - inputs.length) }, () => '')];
    return { inputs: padded.map((input, i) => (i === index ? value : input)) };
  };
}

function int(value: number): Attribute {
  return { type: 'int', value };
}

describe('a packed ONNX decoder', () => {
  it('has the inputs of the engine and nothing of past, present and masks', async () => {
    const { graph, config } = await readModel('qwen3', { rotaryBefore: true });
    const { graph: packed, info } = packDecoder(graph, config);
    expect(packed.inputs.map(({ name }) => name)).toEqual([
      'input_ids',
      'positions',
      'query_starts',
      'context_lengths',
      'block_tables',
      'logit_indices',
    ]);
    expect(packed.outputs).toEqual([
      { name: 'logits', dataType: 'float32', shape: ['rows', config.vocabSize] },
    ]);
    const operators = new Set(packed.nodes.map(({ opType }) => opType));
    for (const gone of ['ReduceSum', 'Shape', 'Sub', 'GroupQueryAttention', 'RotaryEmbedding', 'Reshape']) {
      expect(operators).not.toContain(gone);
    }
    expect(info).toMatchObject({ architecture: 'llama', numLayers: 2, maxPositions: 1024 });
  });

  it('norms heads and rotates inside of the attention, which knows its layer and window', async () => {
    const { graph, config } = await readModel('mistral');
    const { graph: packed, info } = packDecoder(graph, config);
    const attention = packed.nodes.filter(({ opType }) => opType === 'PagedAttention');
    expect(attention.map(({ attributes }) => attributes['layer'])).toEqual([int(0), int(1), int(2)]);
    expect(attention[0]?.attributes).toMatchObject({ window: int(32), rotary_dim: int(config.headDim) });
    expect(info.slidingWindow).toBe(32);
  });

  it('reads weights of linear layers as [n, k], and each cache once', async () => {
    const { graph, config } = await readModel('llama');
    const { initializers, nodes } = packDecoder(graph, config).graph;
    const weight = initializers.get('model.layers.0.mlp.down_proj.weight');
    const stored = graph.initializers.get('model.layers.0.mlp.down_proj.MatMul.weight');
    expect(weight?.shape).toEqual([...(stored?.shape ?? [])].reverse());
    expect(weight?.data).toMatchObject({ kind: 'weight', members: [{ transposed: true }] });
    expect(nodes.filter(({ inputs }) => inputs[1] === 'positions')).toHaveLength(2);
  });

  it('shares the matrix of a tied model that has it once', async () => {
    const { graph, config } = await readModel('llama');
    const transpose: GraphNode = {
      name: '/model/embed_tokens/Transpose',
      opType: 'Transpose',
      domain: '',
      inputs: ['lm_head.MatMul.weight'],
      outputs: ['tied'],
      attributes: { perm: { type: 'ints', value: [1, 0] } },
    };
    const tied = change(graph, '/model/embed_tokens/Gather', withInput(0, 'tied'));
    const packed = packDecoder({ ...tied, nodes: [transpose, ...tied.nodes] }, config);
    expect(packed.info.tiedEmbeddings).toBe(true);
    const gather = packed.graph.nodes.find(({ inputs }) => inputs[1] === 'input_ids');
    const head = packed.graph.nodes.at(-1);
    expect(gather?.inputs[0]).toBe(head?.inputs[1]);
  });
});

const REFUSED: readonly (readonly [
  what: string,
  node: string,
  patch: (node: GraphNode) => Partial<GraphNode>,
  says: string,
])[] = [
  [
    'a soft cap',
    ATTENTION,
    withAttribute('softcap', { type: 'float', value: 30 }),
    'has the attribute softcap 30',
  ],
  ['an unknown attribute', ATTENTION, withAttribute('qk_norm', int(1)), 'has the attribute qk_norm 1'],
  [
    'other heads',
    ATTENTION,
    withAttribute('num_heads', int(2)),
    'has 2 and 2 heads where genai_config.json says 4 and 2',
  ],
  ['no rotation', ATTENTION, withAttribute('do_rotary', int(0)), 'has no rotary embedding'],
  [
    'a bias of attention',
    ATTENTION,
    withInput(10, 'cos_cache'),
    'reads "cos_cache", a bias, a sink or a scale',
  ],
  [
    'positions of its own',
    ATTENTION,
    withInput(9, 'attention_mask'),
    'rotates by "attention_mask", not by position_ids',
  ],
  [
    'a cache that is computed',
    ATTENTION,
    withInput(3, 'seqlens_k'),
    'reads the cache "seqlens_k", which is not an input',
  ],
  [
    'rotation by a vector',
    ATTENTION,
    withInput(7, 'model.layers.0.input_layernorm.weight'),
    'no float32 tables of equal shape',
  ],
  ['q alone', ATTENTION, withInput(2, ''), 'lacks q, k or v'],
  [
    'k in the place of q',
    ATTENTION,
    withInput(0, '/model/layers.0/attn/k_proj/MatMul/output_0'),
    'columns of q, k and v',
  ],
  ['an unknown operator', SIGMOID, () => ({ opType: 'HardSigmoid' }), 'is an operator fdq does not know'],
  ['an operator of another domain', SIGMOID, () => ({ domain: 'my.ops' }), '(my.ops.Sigmoid)'],
  [
    'float16',
    SIGMOID,
    () => ({ opType: 'Cast', attributes: { to: int(10) } }),
    'converts to another type than float32',
  ],
  [
    'a matrix as a row',
    '/model/layers.0/mlp/Mul',
    withInput(1, 'cos_cache'),
    'reads the constant "cos_cache"',
  ],
  [
    'rows of other sizes',
    '/model/layers.0/mlp/Mul',
    withInput(1, '/model/embed_tokens/Gather/output_0'),
    'of different sizes',
  ],
  [
    'a computed weight',
    '/lm_head/MatMul',
    withInput(1, '/model/embed_tokens/Gather/output_0'),
    'to be a constant weight',
  ],
  [
    'another weight',
    '/model/layers.0/mlp/down_proj/MatMul',
    withInput(1, 'lm_head.MatMul.weight'),
    'with a weight of 128',
  ],
  [
    'ids from elsewhere',
    '/model/embed_tokens/Gather',
    withInput(1, 'attention_mask'),
    'not rows by input_ids',
  ],
];

describe('an ONNX decoder that is refused names the node and what it does', () => {
  it.each(REFUSED)('%s', async (_, node, patch, says) => {
    const { graph, config } = await readModel('llama');
    const act = (): unknown => packDecoder(change(graph, node, patch), config);
    expect(act).toThrow(expect.objectContaining({ code: 'unsupported_model', param: node }));
    expect(act).toThrow(says);
  });

  it('an embedding with fewer rows than the vocabulary', async () => {
    const { graph, config } = await readModel('llama');
    const narrow = change(graph, '/model/embed_tokens/Gather', withInput(0, 'cos_cache'));
    expect(() => packDecoder(narrow, config)).toThrow('has 512 rows for a vocabulary of 640');
  });

  it('norms of q and k that differ', async () => {
    const { graph, config } = await readModel('qwen3');
    const other = withAttribute('epsilon', { type: 'float', value: 0.5 });
    const changed = change(graph, '/model/layers.0/attn/k_norm/LayerNorm', other);
    expect(() => packDecoder(changed, config)).toThrow('norms of q and k with different epsilons');
  });

  it('rotations of q and k that differ', async () => {
    const { graph, config } = await readModel('qwen3', { rotaryBefore: true });
    const other = withAttribute('interleaved', int(1));
    const changed = change(graph, '/model/layers.0/attn/k_rotary/RotaryEmbedding', other);
    expect(() => packDecoder(changed, config)).toThrow('a rotation of q that is not that of k');
  });

  it('weights inside of the .onnx file', async () => {
    const { graph, config } = await readModel('llama');
    const name = 'lm_head.MatMul.weight';
    const weight = graph.initializers.get(name);
    if (weight?.data.kind !== 'external') throw new Error('the weight is external');
    const data = { kind: 'inline', bytes: new Uint8Array(weight.data.byteLength) } as const;
    const initializers = new Map([...graph.initializers, [name, { ...weight, data }]]);
    expect(() => packDecoder({ ...graph, initializers }, config)).toThrow(
      'save the model with external data',
    );
  });

  it.each([
    ['vocabSize', 7, 'gives 640 logits where genai_config.json says 7'],
    ['numLayers', 2, 'has 3 attention layers where genai_config.json says 2'],
    ['attentionMask', 'mask', 'has no input "mask"'],
    ['logits', 'scores', 'has no output "scores"'],
  ] as const)('a genai_config.json with another %s', async (key, value, says) => {
    const { graph, config } = await readModel('llama');
    expect(() => packDecoder(graph, { ...config, [key]: value })).toThrow(says);
  });
});
