import { UnsupportedError } from '../../errors.js';
import { GraphBuilder, intAttribute } from '../../graph/builder.js';
import type { Graph, GraphNode, Initializer } from '../../graph/ir.js';
import { addTensor, numberOf } from '../onnx/lowering.js';
import { addScales, describe } from '../onnx/lower-linear.js';
import { unpackInt4Blocks, unpackInt8Blocks, unpackScales, type StockTensor } from '../onnx/stock-weights.js';
import type { FoundExperts } from './layer-view.js';
import { isOfBlocks, type Lowered } from './lower-layer.js';

interface ExpertsPlace {
  /** The QuantLinear of each part of the MoE in the quantized view. */
  readonly parts: readonly GraphNode[];
  readonly quantized: Graph;
  readonly opsets: ReadonlyMap<string, number>;
  readonly path: string;
}

/** Biases of fc1 and fc2 among the inputs of MoE; those of QMoE have scales between weight and bias. */
const BIASES = [3, 5] as const;
/** Input of QMoE. */
const ROUTER_WEIGHTS = 14;

/**
 * A MoE as QMoE: codes [experts, n, k / codes a byte] with zero points in the middle, and scales of rows or of groups
 * of columns (docs/ContribOperators.md of ONNX Runtime).
 * @throws UnsupportedError `unsupported_model` naming the node and a scheme that QMoE does not hold
 */
export function lowerExperts(
  { node, type, parts: found }: FoundExperts,
  { parts, quantized, opsets, path }: ExpertsPlace,
): Lowered {
  const { bits, groupK } = readFormat(node, parts);
  const builder = GraphBuilder.create('experts', opsets);
  const scope = builder.scope(path);
  const tensors = new Map<string, StockTensor>();
  const lowering = { source: quantized, builder: scope, names: new Map(), tensors, valueType: type } as const;
  const inputs = node.inputs.slice(0, 2);
  for (const [index, part] of parts.entries()) {
    const [experts = 0, n = 0, k = 0] = found[index]?.shape ?? [];
    if (groupK > 0 && k % groupK !== 0) {
      throw refuse(node, `has ${k} columns, not a multiple of the ${groupK} that share a scale`);
    }
    const stack = { rows: [experts * n], k };
    const [weight, scales] = [part.inputs[1], part.inputs[2]].map(
      (name) => quantized.initializers.get(name as string) as Initializer,
    ) as [Initializer, Initializer];
    const groups = groupK === 0 ? 1 : k / groupK;
    const unpack = bits === 4 ? unpackInt4Blocks : unpackInt8Blocks;
    inputs.push(
      addTensor(lowering, {
        source: weight.name,
        target: describe(weight.name, 'uint8', [experts, n, (k * bits) / 8]),
        convert: (bytes) => unpack(stack, k, bytes),
      }),
      addScales(lowering, scales, {
        shape: groupK === 0 ? [experts, n] : [experts, n, groups],
        convert: (bytes) => unpackScales(stack, groups, 1, bytes),
      }),
      node.inputs[BIASES[index] as number] ?? '',
    );
  }
  const weights = addRouterWeights(scope, node, type);
  if (weights !== '') inputs.push(...new Array<string>(ROUTER_WEIGHTS - inputs.length).fill(''), weights);
  const attributes = {
    ...node.attributes,
    expert_weight_bits: intAttribute(bits),
    ...(groupK === 0 ? {} : { block_size: intAttribute(groupK) }),
  };
  const { nodes, initializers } = builder.build();
  const replaced = { ...node, name: `${path}/QMoE`, opType: 'QMoE', inputs, attributes };
  return { nodes: [...nodes, replaced], initializers, tensors };
}

/**
 * QMoE makes the weights of the chosen experts sum to 1 even where MoE takes their shares of all experts, unless it is
 * given them.
 * @returns '' where both are the same
 */
function addRouterWeights(scope: GraphBuilder, node: GraphNode, type: FoundExperts['type']): string {
  const normalize = node.attributes['normalize_routing_weights'];
  if (normalize?.type === 'int' && normalize.value === 1) return '';
  const routes = scope.input(node.inputs[1] as string, type, ['tokens', '']);
  return scope.value({
    opType: 'Softmax',
    inputs: [routes],
    output: { dataType: type, shape: ['tokens', ''] },
    attributes: { axis: intAttribute(-1) },
  });
}

function readFormat(
  node: GraphNode,
  parts: readonly GraphNode[],
): { readonly bits: 4 | 8; readonly groupK: number } {
  const formats = parts.map((part) => {
    const format = part.attributes['format'];
    const name = format?.type === 'string' ? format.value : '';
    if (!isOfBlocks(part))
      throw refuse(node, `cannot hold ${name}: QMoE takes int8 and int4 without rounded inputs`);
    return { bits: name === 'int4' ? (4 as const) : (8 as const), groupK: numberOf(part, 'group_k') };
  });
  const [first, second] = formats;
  if (first === undefined || first.bits !== second?.bits || first.groupK !== second.groupK)
    throw refuse(node, 'has parts of different schemes, and QMoE takes one');
  return first;
}

function refuse({ name, opType }: GraphNode, what: string): UnsupportedError {
  return new UnsupportedError('unsupported_model', `The node "${name}" (${opType}) ${what}.`, {
    param: name,
    suggestions: [
      'Use wint8, wint4 or wint4 in groups.',
      'Or leave its experts as they are: "ignore" or "targets" in --quantization-config.',
    ],
  });
}
