import { GraphBuilder, intAttribute } from '../../../src/graph/builder.js';
import type { DataType, Graph, WeightSource } from '../../../src/graph/ir.js';

export const K = 8;

export function source(
  name: string,
  shape: readonly number[],
  dataType: DataType = 'bfloat16',
): WeightSource {
  const bytes = dataType === 'float32' ? 4 : 2;
  const byteLength = shape.reduce((product, size) => product * size, bytes);
  return { name, dataType, shape, file: '/model/model.safetensors', offset: 1000, byteLength };
}

/** A builder with the input `x`, [tokens, 8]. */
export function startGraph(): GraphBuilder {
  const builder = GraphBuilder.create('test', new Map([['', 21]]));
  builder.input('x', 'float32', ['tokens', K]);
  return builder;
}

export interface LinearSpec {
  /** Path of the layer, e.g. `model.layers.0.mlp.down_proj`. */
  readonly module: string;
  readonly x?: string;
  readonly members: readonly WeightSource[];
  readonly bias?: readonly WeightSource[];
}

/** Adds a Gemm as the models do and returns its output. */
export function addGemm(builder: GraphBuilder, { module, x = 'x', members, bias }: LinearSpec): string {
  const weight = builder.weight(`${module}.weight`, members);
  const inputs =
    bias === undefined ? [x, weight] : [x, weight, builder.weight(`${module}.bias`, bias, { as: 'float32' })];
  return builder.scope(module.replace(/\.(?!\d)/g, '/')).value({
    opType: 'Gemm',
    inputs,
    output: { dataType: 'float32', shape: ['tokens', builder.valueInfo(weight).shape[0] as number] },
    attributes: { transB: intAttribute(1) },
  });
}

/** Adds a Gather of rows of an embedding, [40, 8], and the Cast behind it, and returns the float32 rows. */
export function addEmbedding(builder: GraphBuilder, weight?: string): string {
  const module = 'model.embed_tokens';
  const ids = builder.input('input_ids', 'int64', ['tokens']);
  const table = weight ?? builder.weight(`${module}.weight`, [source(`${module}.weight`, [40, K])]);
  const scope = builder.scope('model/embed_tokens');
  const rows = scope.value({
    opType: 'Gather',
    inputs: [table, ids],
    output: { dataType: 'bfloat16', shape: ['tokens', K] },
    attributes: { axis: intAttribute(0) },
  });
  return scope.value({
    opType: 'Cast',
    inputs: [rows],
    output: { dataType: 'float32', shape: ['tokens', K] },
    attributes: { to: intAttribute(1) },
  });
}

/** An embedding and a head that are one tensor. */
export function tiedGraph(): Graph {
  const builder = startGraph();
  const rows = addEmbedding(builder);
  builder.output(
    builder.scope('lm_head').value({
      opType: 'Gemm',
      inputs: [rows, 'model.embed_tokens.weight'],
      output: { dataType: 'float32', shape: ['tokens', 40], name: 'logits' },
      attributes: { transB: intAttribute(1) },
    }),
  );
  return builder.build();
}

const ATTENTION = 'model.layers.0.self_attn';
const MLP = 'model.layers.0.mlp';

export const QKV: LinearSpec = {
  module: `${ATTENTION}.qkv_proj`,
  members: [
    source(`${ATTENTION}.q_proj.weight`, [32, K]),
    source(`${ATTENTION}.k_proj.weight`, [16, K]),
    source(`${ATTENTION}.v_proj.weight`, [16, K]),
  ],
  bias: [
    source(`${ATTENTION}.q_proj.bias`, [32]),
    source(`${ATTENTION}.k_proj.bias`, [16]),
    source(`${ATTENTION}.v_proj.bias`, [16]),
  ],
};

/** One layer of a small model: fused q/k/v with bias, fused gate/up, a router and a head tied to the embedding. */
export function modelGraph(): Graph {
  const builder = startGraph();
  const ids = builder.input('input_ids', 'int64', ['tokens']);
  const table = builder.weight('model.embed_tokens.weight', [source('model.embed_tokens.weight', [40, K])]);
  const rows = builder.scope('model/embed_tokens').value({
    opType: 'Gather',
    inputs: [table, ids],
    output: { dataType: 'bfloat16', shape: ['tokens', K] },
  });
  const norm = builder.weight('model.norm.weight', [source('model.norm.weight', [K])], { as: 'float32' });
  const x = builder.scope('model/norm').value({
    opType: 'Mul',
    inputs: ['x', norm],
    output: { dataType: 'float32', shape: ['tokens', K] },
  });
  const outputs = [
    rows,
    addGemm(builder, { ...QKV, x }),
    addGemm(builder, {
      module: `${MLP}.gate_up_proj`,
      members: [source(`${MLP}.gate_proj.weight`, [24, K]), source(`${MLP}.up_proj.weight`, [24, K])],
    }),
    addGemm(builder, { module: `${MLP}.gate`, members: [source(`${MLP}.gate.weight`, [4, K])] }),
    addGemm(builder, {
      module: `${MLP}.shared_expert_gate`,
      members: [source(`${MLP}.shared_expert_gate.weight`, [1, K])],
    }),
    builder.scope('lm_head').value({
      opType: 'Gemm',
      inputs: ['x', table],
      output: { dataType: 'float32', shape: ['tokens', 40], name: 'logits' },
      attributes: { transB: intAttribute(1) },
    }),
  ];
  for (const output of outputs) builder.output(output);
  return builder.build();
}
