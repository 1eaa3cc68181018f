import { byteLengthOf } from '../graph/data-types.js';
import type { Graph, GraphNode, Initializer } from '../graph/ir.js';
import { precisionName } from '../quant/precision.js';
import { SCHEMES } from '../quant/registry.js';
import type { LayerRow } from './report.js';

/** A weight matrix of an ONNX model and how it is quantized, as far as the model says. */
export type OnnxLayer = Pick<LayerRow, 'kind' | 'shape' | 'storedType' | 'scheme' | 'precision'> & {
  readonly node: GraphNode;
  /** The weight first, then its scales and zero points. */
  readonly parts: readonly Initializer[];
};

/** A graph with what readers of operators look up. */
export interface OnnxContext {
  readonly graph: Graph;
  /** The node that makes a value. */
  readonly producers: ReadonlyMap<string, GraphNode>;
}

type Reader = (node: GraphNode, context: OnnxContext) => readonly OnnxLayer[];

const MICROSOFT = 'com.microsoft';
/** Nodes between a weight and the product that reads it. */
const MAX_STEPS = 8;

/** Operators that hold weights, by domain and type. Everything else is looked at as MatMul, Gemm and Gather are. */
const READERS: ReadonlyMap<string, Reader> = new Map<string, Reader>([
  [`${MICROSOFT}/MatMulNBits`, readMatMulNBits],
  [`${MICROSOFT}/MatMulBnb4`, readMatMulBnb4],
  [`${MICROSOFT}/GatherBlockQuantized`, readGatherBlockQuantized],
  [`${MICROSOFT}/QMoE`, readQMoE],
  [`${MICROSOFT}/DynamicQuantizeMatMul`, integerReader({ weight: 1, others: [2, 3], activation: 'int8' })],
  [`${MICROSOFT}/MatMulIntegerToFloat`, integerReader({ weight: 1, others: [3, 5], activation: 'int8' })],
  ['/MatMulInteger', integerReader({ weight: 1, others: [3], activation: 'int8' })],
  ['/QLinearMatMul', integerReader({ weight: 3, others: [4, 5], activation: 'int8' })],
  ['fdq/QuantLinear', readQuantLinear],
  ['fdq/QuantGather', readQuantGather],
  ['/MatMul', readProduct],
  ['/Gemm', readProduct],
  ['/Gather', readGather],
]);

/** The weights of a node, none when it has none. */
export function readOnnxLayers(node: GraphNode, context: OnnxContext): readonly OnnxLayer[] {
  return READERS.get(`${node.domain}/${node.opType}`)?.(node, context) ?? [];
}

function readMatMulNBits(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  const bits = intOf(node, 'bits', 4);
  const parts = initializersOf(node, graph, [1, 2, 3, 4]);
  const zeroPoints = isGiven(node, 3) ? ', zero points' : '';
  const rounded = intOf(node, 'accuracy_level', 0) === 4;
  return layerOf({
    node,
    parts,
    shape: [intOf(node, 'N', 0), intOf(node, 'K', 0)],
    scheme: `MatMulNBits int${bits}, groups of ${intOf(node, 'block_size', 0)}${zeroPoints}`,
    precision: `W${bits}A${rounded ? 8 : 16}`,
  });
}

function readMatMulBnb4(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  const type = intOf(node, 'quant_type', 1) === 1 ? 'nf4' : 'fp4';
  return layerOf({
    node,
    parts: initializersOf(node, graph, [1, 2]),
    shape: [intOf(node, 'N', 0), intOf(node, 'K', 0)],
    scheme: `MatMulBnb4 ${type}, blocks of ${intOf(node, 'block_size', 0)}`,
    precision: `W${type === 'nf4' ? 'NF4' : type}A16`,
  });
}

function readGatherBlockQuantized(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  const parts = initializersOf(node, graph, [0, 2, 3]);
  const [weight] = parts;
  if (weight === undefined) return [];
  const stored = /^u?int(\d)$/.exec(weight.dataType)?.[1];
  const bits = intOf(node, 'bits', stored === undefined ? 4 : Number(stored));
  // Codes narrower than their type are packed along the last axis.
  const perElement = weight.dataType === 'uint8' && bits < 8 ? 8 / bits : 1;
  const shape = weight.shape.map((size, axis) =>
    axis === weight.shape.length - 1 ? size * perElement : size,
  );
  return layerOf({
    node,
    parts,
    shape,
    scheme: `GatherBlockQuantized int${bits}, groups of ${intOf(node, 'block_size', 128)}`,
    precision: `W${bits}A16`,
  });
}

/** Experts of one layer: [experts, n, k], codes packed along k. */
function readQMoE(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  const bits = intOf(node, 'expert_weight_bits', 4);
  const blockSize = intOf(node, 'block_size', 0);
  const firstOf = [2, 5, 8];
  return firstOf.flatMap((index) => {
    const parts = initializersOf(node, graph, [index, index + 1]);
    const [weight] = parts;
    if (weight === undefined) return [];
    const shape = weight.shape.map((size, axis) =>
      axis === weight.shape.length - 1 ? (size * 8) / bits : size,
    );
    const groups = blockSize === 0 ? 'a scale a row' : `groups of ${blockSize}`;
    return layerOf({ node, parts, shape, scheme: `QMoE int${bits}, ${groups}`, precision: `W${bits}A16` });
  });
}

function integerReader(inputs: {
  readonly weight: number;
  readonly others: readonly number[];
  readonly activation: 'int8';
}): Reader {
  return (node, { graph }) => {
    const parts = initializersOf(node, graph, [inputs.weight, ...inputs.others]);
    const [weight] = parts;
    if (weight === undefined || weight.name !== node.inputs[inputs.weight]) return [];
    const shape = [...weight.shape].reverse();
    return layerOf({ node, parts, shape, scheme: `${node.opType} ${weight.dataType}`, precision: 'W8A8' });
  };
}

function readQuantLinear(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  return readOwn(node, initializersOf(node, graph, [1, 2, 4, 5]));
}

function readQuantGather(node: GraphNode, { graph }: OnnxContext): readonly OnnxLayer[] {
  return readOwn(node, initializersOf(node, graph, [1, 2, 3]));
}

/** A node fdq wrote: its attributes say the format, of which several schemes may be. */
function readOwn(node: GraphNode, parts: readonly Initializer[]): readonly OnnxLayer[] {
  const text = (name: string): string => {
    const attribute = node.attributes[name];
    return attribute?.type === 'string' ? attribute.value : '';
  };
  const format = text('format');
  const scheme = SCHEMES.find(
    ({ native, activation }) =>
      native?.format === format &&
      native.groupN === intOf(node, 'group_n', 1) &&
      native.groupK === intOf(node, 'group_k', 0) &&
      (native.block?.columns ?? 0) === intOf(node, 'block_k', 0) &&
      (activation === null) === (text('activation') === 'none' || node.opType === 'QuantGather'),
  );
  const isStored = /^(?:b?float16|float32)$/.test(format);
  const rows = node.attributes['rows'];
  const n =
    rows?.type === 'ints' ? rows.value.reduce((sum, count) => sum + count, 0) : intOf(node, 'rows', 0);
  return layerOf({
    node,
    parts,
    shape: [n, intOf(node, 'k', 0)],
    scheme: isStored ? 'none' : (scheme?.name ?? `${node.opType} ${format}`),
    precision: isStored ? 'W16A16' : scheme === undefined ? null : precisionName(scheme),
  });
}

/** MatMul and Gemm: a float weight, or one behind DequantizeLinear; Transpose and Cast between them are looked through. */
function readProduct(node: GraphNode, context: OnnxContext): readonly OnnxLayer[] {
  const found = [1, 0]
    .map((index) => traceWeight(node.inputs[index] ?? '', context))
    .find((weight) => weight);
  if (found === undefined) return [];
  const inverted = found.transposed !== (node.opType === 'Gemm' && intOf(node, 'transB', 0) === 1);
  const shape = inverted ? found.weight.shape : [...found.weight.shape].reverse();
  return describeTraced(node, found, { shape, context });
}

function readGather(node: GraphNode, context: OnnxContext): readonly OnnxLayer[] {
  const found = traceWeight(node.inputs[0] ?? '', context);
  return found === undefined ? [] : describeTraced(node, found, { shape: found.weight.shape, context });
}

interface Traced {
  readonly weight: Initializer;
  readonly dequantize: GraphNode | undefined;
  readonly transposed: boolean;
}

/** The matrix a value is made from by nothing but DequantizeLinear, Transpose and Cast. */
function traceWeight(value: string, { graph, producers }: OnnxContext): Traced | undefined {
  let name = value;
  let transposed = false;
  let dequantize: GraphNode | undefined;
  for (let step = 0; step < MAX_STEPS; step++) {
    const weight = graph.initializers.get(name);
    if (weight !== undefined) {
      return weight.shape.length === 2 ? { weight, dequantize, transposed } : undefined;
    }
    const producer = producers.get(name);
    if (producer?.domain !== '' && producer?.opType !== 'DequantizeLinear') return undefined;
    if (producer.opType === 'Transpose') transposed = !transposed;
    else if (producer.opType === 'DequantizeLinear') dequantize = producer;
    else if (producer.opType !== 'Cast') return undefined;
    name = producer.inputs[0] ?? '';
  }
  return undefined;
}

function describeTraced(
  node: GraphNode,
  { weight, dequantize }: Traced,
  { shape, context }: { readonly shape: readonly number[]; readonly context: OnnxContext },
): readonly OnnxLayer[] {
  const { graph, producers } = context;
  if (dequantize === undefined) {
    return layerOf({ node, parts: [weight], shape, scheme: 'none', precision: 'W16A16' });
  }
  const parts = initializersOf(dequantize, graph, [0, 1, 2]);
  const scales = graph.initializers.get(dequantize.inputs[1] ?? '');
  const blockSize = intOf(dequantize, 'block_size', 0);
  const group = blockSize > 0 ? `groups of ${blockSize}` : scaleGroup(scales);
  const isRounded = producers.get(node.inputs[0] ?? '')?.opType === 'DequantizeLinear';
  const bits = weight.dataType.includes('float8') ? 'fp8' : (/\d+$/.exec(weight.dataType)?.[0] ?? '?');
  return layerOf({
    node,
    parts,
    shape,
    scheme: `QDQ ${weight.dataType}, ${group}${isGiven(dequantize, 2) ? ', zero points' : ''}`,
    precision: `W${bits}A${isRounded ? bits : 16}`,
  });
}

function scaleGroup(scales: Initializer | undefined): string {
  const count = scales?.shape.reduce((product, size) => product * size, 1) ?? 1;
  return count === 1 ? 'one scale' : 'a scale a channel';
}

function layerOf(
  layer: Pick<OnnxLayer, 'node' | 'parts' | 'shape' | 'scheme' | 'precision'>,
): readonly OnnxLayer[] {
  const [weight] = layer.parts;
  if (weight === undefined) return [];
  return [{ ...layer, kind: layer.node.opType, storedType: weight.dataType }];
}

function initializersOf(node: GraphNode, graph: Graph, inputs: readonly number[]): readonly Initializer[] {
  return inputs.flatMap((index) => graph.initializers.get(node.inputs[index] ?? '') ?? []);
}

function isGiven(node: GraphNode, input: number): boolean {
  return (node.inputs[input] ?? '') !== '';
}

function intOf(node: GraphNode, name: string, absent: number): number {
  const attribute = node.attributes[name];
  return attribute?.type === 'int' ? attribute.value : absent;
}

/** Bytes of initializers, each counted once. */
export function partBytes(parts: Iterable<Initializer>): number {
  let bytes = 0;
  for (const { dataType, shape } of new Set(parts)) bytes += byteLengthOf(dataType, shape);
  return bytes;
}
