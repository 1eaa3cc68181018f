import { GraphBuilder } from '../../graph/builder.js';
import type { DecoderGraph, DecoderInfo, ModelConfig, TensorSpec, WeightLookup } from '../architecture.js';
import { addAttention, attentionTensors, type AttentionTensors } from './attention.js';
import { OPSETS, type BlockContext } from './context.js';
import { addEmbedding, addHead, addRowSelection, embeddingTensor, headTensors } from './embedding.js';
import { addMlp, mlpTensors } from './mlp.js';
import { addLastNorm, addResidualNorm, addRmsNorm, normTensor } from './norm.js';
import { addRotaryTable } from './rope.js';

/** The checkpoint of a pre-norm decoder with Llama's tensor names. */
export function decoderTensors(
  config: ModelConfig,
  has: AttentionTensors & { readonly mlpBias: boolean },
): readonly TensorSpec[] {
  const layer = 'model.layers.{layer}';
  return [
    embeddingTensor(config),
    normTensor(`${layer}.input_layernorm`, config.hiddenSize),
    ...attentionTensors(`${layer}.self_attn`, config, has),
    normTensor(`${layer}.post_attention_layernorm`, config.hiddenSize),
    ...mlpTensors(`${layer}.mlp`, config, has.mlpBias),
    normTensor('model.norm', config.hiddenSize),
    ...headTensors(config),
  ];
}

/**
 * The graph of a pre-norm decoder. Each norm also adds the branch before it to the residual stream:
 *
 *   embed ─► norm ─► attention ─► +norm ─► mlp ─► +norm ─► attention ─► ... ─► +norm ─► head
 *       └────────residual─────────►┘  └────────────►┘  └──────────► ...
 *
 * After the last layer's attention nothing looks at other tokens: from there on only the rows that become logits
 * are computed.
 */
export function buildDecoder(config: ModelConfig, weights: WeightLookup): DecoderGraph {
  const graph = GraphBuilder.create(config.architecture, OPSETS);
  const context = { graph, weights, config };
  const inputs = addInputs(context);
  const rotary = addRotaryTable(context, inputs.positions);
  let residual = addEmbedding(context, inputs.inputIds);
  let branch = '';
  for (let layer = 0; layer < config.numLayers; layer++) {
    const module = `model.layers.${layer}`;
    let normed: string;
    if (layer === 0) normed = addRmsNorm(context, `${module}.input_layernorm`, residual);
    else ({ normed, sum: residual } = addResidualNorm(context, `${module}.input_layernorm`, branch, residual));
    const isLast = layer === config.numLayers - 1;
    const rows = isLast ? inputs.logitIndices : undefined;
    const attended = addAttention(context, `${module}.self_attn`, layer, { ...inputs, rotary, rows, x: normed });
    if (rows !== undefined) residual = addRowSelection(context, residual, rows);
    ({ normed, sum: residual } = addResidualNorm(context, `${module}.post_attention_layernorm`, attended, residual));
    branch = addMlp(context, `${module}.mlp`, normed);
  }
  graph.output(addHead(context, addLastNorm(context, 'model.norm', branch, residual)));
  return { graph: graph.build(), info: describeDecoder(context) };
}

function addInputs({ graph }: BlockContext) {
  return {
    inputIds: graph.input('input_ids', 'int64', ['tokens']),
    positions: graph.input('positions', 'int32', ['tokens']),
    queryStarts: graph.input('query_starts', 'int32', ['sequences_plus_1']),
    contextLengths: graph.input('context_lengths', 'int32', ['sequences']),
    blockTables: graph.input('block_tables', 'int32', ['sequences', 'max_blocks']),
    logitIndices: graph.input('logit_indices', 'int64', ['rows']),
  };
}

function describeDecoder({ config, weights }: BlockContext): DecoderInfo {
  const { architecture, vocabSize, hiddenSize, numLayers, numHeads, numKvHeads, headDim, windows } = config;
  return {
    architecture,
    vocabSize,
    hiddenSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositions: config.maxPositions,
    ...(windows.includes(0) ? {} : { slidingWindow: Math.max(...windows) }),
    tiedEmbeddings: config.tiedEmbeddings,
    storedDataType: weights.tensor(embeddingTensor(config).name).dataType,
  };
}
