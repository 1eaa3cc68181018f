import { UserError } from '../../errors.js';
import type { DataType, Graph, GraphNode, ValueInfo } from '../../graph/ir.js';
import type { DecoderInfo } from '../../models/architecture.js';
import { FDQ_DOMAIN } from '../../models/blocks/context.js';

/** Inputs of a decoder graph; see src/models/architecture.ts. */
const INPUTS: readonly (readonly [name: string, dataType: DataType, rank: number])[] = [
  ['input_ids', 'int64', 1],
  ['positions', 'int32', 1],
  ['query_starts', 'int32', 1],
  ['context_lengths', 'int32', 1],
  ['block_tables', 'int32', 2],
  ['logit_indices', 'int64', 1],
];

/**
 * Proves that a graph from a file is a decoder of the sizes its fdq.json gives: the engine feeds it and sizes its
 * cache by them.
 * @throws UserError `invalid_checkpoint`
 */
export function checkDecoderGraph(graph: Graph, decoder: DecoderInfo): void {
  for (const [name, dataType, rank] of INPUTS) {
    const input = graph.inputs.find((other) => other.name === name);
    if (input?.dataType !== dataType || input.shape.length !== rank) {
      throw refuse(`its input "${name}" is not ${dataType} of ${rank} dimensions`);
    }
  }
  if (graph.inputs.length !== INPUTS.length) throw refuse('it has inputs fdq does not know');
  const [logits, ...others] = graph.outputs;
  if (logits === undefined || others.length > 0 || !isLogits(logits, decoder)) {
    throw refuse(`its output is not "logits", float32 [rows, ${decoder.vocabSize}]`);
  }
  const attention = graph.nodes.filter(
    ({ domain, opType }) => domain === FDQ_DOMAIN && opType === 'PagedAttention',
  );
  const layers = new Set(attention.map((node) => integer(node, 'layer')));
  if (attention.length !== decoder.numLayers || layers.size !== decoder.numLayers) {
    throw refuse(`it has ${attention.length} attention layers, not ${decoder.numLayers}`);
  }
  for (const node of attention) checkAttention(node, decoder);
}

function checkAttention(node: GraphNode, { numLayers, numHeads, numKvHeads, headDim }: DecoderInfo): void {
  const layer = integer(node, 'layer') ?? -1;
  const fits =
    layer >= 0 &&
    layer < numLayers &&
    integer(node, 'num_heads') === numHeads &&
    integer(node, 'num_kv_heads') === numKvHeads &&
    integer(node, 'head_dim') === headDim;
  if (!fits) throw refuse(`attention "${node.name}" has other sizes than fdq.json says`);
}

function isLogits({ name, dataType, shape }: ValueInfo, { vocabSize }: DecoderInfo): boolean {
  return name === 'logits' && dataType === 'float32' && shape.length === 2 && shape[1] === vocabSize;
}

function integer({ attributes }: GraphNode, name: string): number | undefined {
  const attribute = attributes[name];
  return attribute?.type === 'int' ? attribute.value : undefined;
}

function refuse(problem: string): UserError {
  return new UserError(
    'invalid_checkpoint',
    `model.onnx is not the decoder fdq.json describes: ${problem}.`,
    {
      param: 'model.onnx',
      suggestions: ['Convert the checkpoint again: fdq convert --force.'],
    },
  );
}
