import { GraphBuilder, intAttribute } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { Dimension, Graph, GraphNode } from '../../graph/ir.js';
import type { DecoderInfo } from '../../models/architecture.js';
import { lowerAttention } from './lower-attention.js';
import { lowerLinear } from './lower-linear.js';
import { mapped, refuse, scopeOf, type Lowering } from './lowering.js';
import type { StockTensor } from './stock-weights.js';

/** Domains → versions of the lowered graph: nothing in it is fdq's own. */
const OPSETS: ReadonlyMap<string, number> = new Map([
  ['', 21],
  ['com.microsoft', 1],
]);

const FDQ_DOMAIN = 'fdq';

/** A graph of operators that every ONNX Runtime has, and where its large tensors come from. */
export interface LoweredGraph {
  readonly graph: Graph;
  readonly tensors: readonly StockTensor[];
}

/**
 * A decoder over packed tokens and a paged cache as the decoder onnxruntime-genai runs: `input_ids` and
 * `attention_mask` int64 [batch, sequence] and [batch, total], `past_key_values.N.key` and `.value` float32
 * [batch, kv heads, past, head], giving `logits` float32 [batch, sequence, vocab] and `present.N.*`.
 *
 * fdq's operators become GroupQueryAttention, MatMulNBits, DequantizeLinear and standard arithmetic; everything
 * else stays as it is.
 * @throws UnsupportedError `unsupported_model` naming what no standard operator computes
 */
export function lowerGraph(source: Graph, decoder: DecoderInfo): LoweredGraph {
  const builder = GraphBuilder.create(source.name, OPSETS);
  const lowering = addInputs(source, decoder, builder);
  for (const node of source.nodes) lowerNode(lowering, node);
  addLogits(lowering);
  return { graph: builder.build(), tensors: [...lowering.tensors.values()] };
}

function addInputs(source: Graph, decoder: DecoderInfo, builder: GraphBuilder): Lowering {
  const ids = builder.input('input_ids', 'int64', ['batch', 'sequence']);
  const mask = builder.input('attention_mask', 'int64', ['batch', 'total_sequence']);
  for (let layer = 0; layer < decoder.numLayers; layer++) {
    for (const part of ['key', 'value']) {
      const shape: Dimension[] = ['batch', decoder.numKvHeads, 'past_sequence', decoder.headDim];
      builder.input(`past_key_values.${layer}.${part}`, 'float32', shape);
    }
  }
  const scope = builder.scope('model/inputs');
  const all = scope.constant('all', 'int64', [1], BigInt64Array.of(-1n));
  const shape = { dataType: 'int64', shape: [2] } as const;
  const size = scope.value({ opType: 'Shape', inputs: [ids], output: shape });
  const batchShape = scope.value({
    opType: 'Concat',
    inputs: [size, all],
    output: { dataType: 'int64', shape: [3] },
    attributes: { axis: intAttribute(0) },
  });
  const flat = scope.value({
    opType: 'Reshape',
    inputs: [ids, all],
    output: { dataType: 'int64', shape: ['tokens'] },
  });
  return {
    source,
    decoder,
    builder,
    names: new Map([['input_ids', flat]]),
    tensors: new Map(),
    batchShape,
    ...addLengths(scope, mask),
  };
}

function addLengths(scope: GraphBuilder, mask: string): Pick<Lowering, 'lastPositions' | 'totalLength'> {
  const one = scope.constant('one', 'int64', [1], BigInt64Array.of(1n));
  const counts = scope.value({
    opType: 'ReduceSum',
    inputs: [mask, one],
    output: { dataType: 'int64', shape: ['batch'] },
    attributes: { keepdims: intAttribute(0) },
  });
  const last = scope.value({
    opType: 'Sub',
    inputs: [counts, one],
    output: { dataType: 'int64', shape: ['batch'] },
  });
  const size = scope.value({
    opType: 'Shape',
    inputs: [mask],
    output: { dataType: 'int64', shape: [2] },
  });
  const index = scope.constant('sequence_axis', 'int64', [], BigInt64Array.of(1n));
  const total = scope.value({
    opType: 'Gather',
    inputs: [size, index],
    output: { dataType: 'int64', shape: [] },
    attributes: { axis: intAttribute(0) },
  });
  return { lastPositions: toInt32(scope, last, ['batch']), totalLength: toInt32(scope, total, []) };
}

function toInt32(scope: GraphBuilder, input: string, shape: readonly Dimension[]): string {
  return scope.value({
    opType: 'Cast',
    inputs: [input],
    output: { dataType: 'int32', shape },
    attributes: { to: intAttribute(elementTypeOf('int32')) },
  });
}

function lowerNode(lowering: Lowering, node: GraphNode): void {
  const { names } = lowering;
  const [output = ''] = node.outputs;
  if (node.domain !== FDQ_DOMAIN) {
    // Rows that become logits are picked in the packed graph; here every position has logits.
    if (node.inputs.includes('logit_indices')) names.set(output, mapped(lowering, node.inputs[0] as string));
    else copyNode(lowering, node);
    return;
  }
  switch (node.opType) {
    case 'RotaryTable':
      return; // Its cosines and sines become constants of each GroupQueryAttention.
    case 'PagedAttention':
      names.set(output, lowerAttention(lowering, node));
      return;
    case 'SwiGLU':
      names.set(output, lowerSwiglu(lowering, node));
      return;
    case 'QuantLinear':
      names.set(output, lowerLinear(lowering, node));
      return;
    default:
      throw refuse(
        `${node.opType} (${node.name})`,
        'Leave --quantize-embeddings out (and --quantize-lm-head where the two are tied), or write --format fdq.',
      );
  }
}

function copyNode(lowering: Lowering, node: GraphNode): void {
  const scope = scopeOf(lowering, node);
  const outputs = scope.node({
    opType: node.opType,
    domain: node.domain,
    inputs: node.inputs.map((input) => mapped(lowering, input)),
    outputs: node.outputs.map((name) => {
      const info = lowering.source.values.get(name);
      return info === undefined ? null : { dataType: info.dataType, shape: info.shape };
    }),
    attributes: node.attributes,
  });
  for (const [index, name] of node.outputs.entries()) {
    if (name !== '') lowering.names.set(name, outputs[index] as string);
  }
}

/** silu(gate) * up of [tokens, 2 * width], gate first. */
function lowerSwiglu(lowering: Lowering, node: GraphNode): string {
  const scope = scopeOf(lowering, node);
  const input = mapped(lowering, node.inputs[0] as string);
  const width = (scope.valueInfo(input).shape[1] as number) / 2;
  const half = { dataType: 'float32', shape: ['tokens', width] } as const;
  const [gate = '', up = ''] = scope.node({
    opType: 'Split',
    inputs: [input],
    outputs: [half, half],
    attributes: { axis: intAttribute(1), num_outputs: intAttribute(2) },
  });
  const sigmoid = scope.value({ opType: 'Sigmoid', inputs: [gate], output: half });
  const silu = scope.value({ opType: 'Mul', inputs: [gate, sigmoid], output: half });
  return scope.value({ opType: 'Mul', inputs: [silu, up], output: half });
}

function addLogits(lowering: Lowering): void {
  const { builder, decoder, names, batchShape } = lowering;
  const logits = builder.scope('lm_head').value({
    opType: 'Reshape',
    inputs: [names.get('logits') as string, batchShape],
    output: { name: 'logits', dataType: 'float32', shape: ['batch', 'sequence', decoder.vocabSize] },
  });
  builder.output(logits);
  for (let layer = 0; layer < decoder.numLayers; layer++) {
    for (const part of ['key', 'value']) builder.output(`present.${layer}.${part}`);
  }
}
