import { intAttribute } from '../../graph/builder.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { byteLengthOf, elementTypeOf } from '../../graph/data-types.js';
import type { DataType, GraphNode, Initializer } from '../../graph/ir.js';
import { addTensor, mapped, numberOf, refuse, scopeOf, type LayerLowering } from './lowering.js';
import { roundInputs } from './round-inputs.js';
import {
  asFloat16,
  spreadMembers,
  spreadTiles,
  unpackInt4Blocks,
  unpackInt8Blocks,
  unpackRows,
  unpackScales,
} from './stock-weights.js';

/** Columns of a MatMulNBits block where one scale covers the row. */
const ROW_BLOCK = 128;
const TILE = 128;

/** A QuantLinear, read. */
interface Layer {
  readonly node: GraphNode;
  readonly scope: GraphBuilder;
  /** [tokens, k], rounded as the layer rounds its input. */
  readonly x: string;
  /** Initializers of the packed graph. */
  readonly weight: Initializer;
  readonly scales: Initializer | undefined;
  /** Value here, '' for none. */
  readonly bias: string;
  readonly format: string;
  readonly rows: readonly number[];
  readonly n: number;
  readonly k: number;
  readonly groupN: number;
  readonly groupK: number;
}

/**
 * A QuantLinear as MatMulNBits (int4, int8), or as DequantizeLinear and Gemm (e4m3), or as Cast and Gemm (stored
 * floats), with the rounding of its input before it.
 * @returns the value [tokens, n]
 */
export function lowerLinear(lowering: LayerLowering, node: GraphNode): string {
  const layer = readLayer(lowering, node);
  switch (layer.format) {
    case 'int4':
    case 'int8':
      return addMatMulNBits(lowering, layer);
    case 'e4m3':
      return addGemm(layer, addDequantized(lowering, layer));
    case 'float32':
    case 'float16':
    case 'bfloat16':
      return addGemm(layer, addFloat(lowering, layer));
    default:
      throw refuseFormat(layer, layer.format);
  }
}

function readLayer(lowering: LayerLowering, node: GraphNode): Layer {
  const [x = '', weight = '', scales = '', bias = '', blockScales = '', zeroPoints = ''] = node.inputs;
  const rows = node.attributes['rows'];
  const list = rows?.type === 'ints' ? rows.value : [];
  const scope = scopeOf(lowering, node);
  const layer = {
    node,
    scope,
    x: mapped(lowering, x),
    weight: lowering.source.initializers.get(weight) as Initializer,
    scales: lowering.source.initializers.get(scales),
    bias: mapped(lowering, bias),
    format: textOf(node, 'format'),
    rows: list,
    n: list.reduce((sum, count) => sum + count, 0),
    k: numberOf(node, 'k'),
    groupN: numberOf(node, 'group_n'),
    groupK: numberOf(node, 'group_k'),
  };
  if (blockScales !== '') throw refuseFormat(layer, `${layer.format} with scales of blocks`);
  if (zeroPoints !== '') throw refuseFormat(layer, `${layer.format} with zero points`);
  const rounding = { rule: textOf(node, 'activation'), scale: numberOf(node, 'activation_scale') };
  return { ...layer, x: roundInputs(scope, layer.x, rounding) };
}

function addMatMulNBits(lowering: LayerLowering, layer: Layer): string {
  const { scope, weight, scales, rows, n, k, format, groupK } = layer;
  if (layer.groupN !== 1 || scales === undefined)
    throw refuseFormat(layer, `${format} without scales of rows`);
  const stack = { rows, k };
  const block = groupK === 0 ? ROW_BLOCK : groupK;
  const blocks = Math.ceil(k / block);
  const groups = groupK === 0 ? 1 : blocks;
  const isInt4 = format === 'int4';
  const codes = addTensor(lowering, {
    source: weight.name,
    target: describe(weight.name, 'uint8', [n, blocks, isInt4 ? block / 2 : block]),
    convert: (bytes) =>
      isInt4 ? unpackInt4Blocks(stack, block, bytes) : unpackInt8Blocks(stack, block, bytes),
  });
  const valueType = lowering.valueType ?? 'float32';
  const factors = addScales(lowering, scales, {
    shape: [n * blocks],
    convert: (bytes) => unpackScales(stack, groups, blocks / groups, bytes),
  });
  return scope.value({
    opType: 'MatMulNBits',
    domain: 'com.microsoft',
    inputs: [layer.x, codes, factors, ...(layer.bias === '' ? [] : ['', '', layer.bias])],
    output: { dataType: valueType, shape: ['tokens', n] },
    attributes: {
      K: intAttribute(k),
      N: intAttribute(n),
      bits: intAttribute(isInt4 ? 4 : 8),
      block_size: intAttribute(block),
    },
  });
}

/** e4m3 weights [n, k] times their scales: of rows, of whole tensors, or of tiles as a scale a row and 128 columns. */
function addDequantized(lowering: LayerLowering, layer: Layer): string {
  const { scope, weight, scales, rows, n, k, groupN, groupK } = layer;
  const stack = { rows, k };
  const tiled = groupN === TILE;
  if (scales === undefined || (groupK !== 0 && !tiled)) {
    throw refuseFormat(layer, `e4m3 with a scale for ${groupK} columns`);
  }
  const codes = addTensor(lowering, {
    source: weight.name,
    target: describe(weight.name, 'float8e4m3fn', [n, k]),
    convert: (bytes) => unpackRows(stack, bytes),
  });
  const factors = addTensor(lowering, {
    source: scales.name,
    target: describe(scales.name, 'float32', tiled ? [n, Math.ceil(k / TILE)] : [n]),
    convert: (bytes) =>
      tiled
        ? spreadTiles(stack, bytes)
        : groupN === 0
          ? spreadMembers(stack, bytes)
          : unpackScales(stack, 1, 1, bytes),
  });
  return scope.value({
    opType: 'DequantizeLinear',
    inputs: [codes, factors],
    output: { dataType: 'float32', shape: [n, k] },
    attributes: tiled ? { axis: intAttribute(1), block_size: intAttribute(TILE) } : { axis: intAttribute(0) },
  });
}

/** The weight as stored, in float32: ONNX Runtime's CPU kernels multiply nothing shorter. */
function addFloat(lowering: LayerLowering, { scope, weight, format }: Layer): string {
  const stored = mapped(lowering, weight.name);
  if (format === 'float32') return stored;
  return scope.value({
    opType: 'Cast',
    inputs: [stored],
    output: { dataType: 'float32', shape: weight.shape },
    attributes: { to: intAttribute(elementTypeOf('float32')) },
  });
}

function addGemm({ scope, x, bias, n }: Layer, weight: string): string {
  return scope.value({
    opType: 'Gemm',
    inputs: bias === '' ? [x, weight] : [x, weight, bias],
    output: { dataType: 'float32', shape: ['tokens', n] },
    attributes: { transB: intAttribute(1) },
  });
}

/** Scales in the type of the values their weights are multiplied with. */
export function addScales(
  lowering: LayerLowering,
  { name }: Initializer,
  {
    shape,
    convert,
  }: { readonly shape: readonly number[]; readonly convert: (bytes: Uint8Array) => Uint8Array },
): string {
  if (lowering.valueType !== 'float16')
    return addTensor(lowering, { source: name, target: describe(name, 'float32', shape), convert });
  return addTensor(lowering, {
    source: name,
    target: describe(`${name}.float16`, 'float16', shape),
    convert: (bytes) => asFloat16(convert(bytes)),
  });
}

/** An initializer whose place in the weights file is found later. */
export function describe(name: string, dataType: DataType, shape: readonly number[]): Initializer {
  const byteLength = byteLengthOf(dataType, shape);
  return { name, dataType, shape, data: { kind: 'external', file: '', offset: 0, byteLength } };
}

function textOf(node: GraphNode, name: string): string {
  const attribute = node.attributes[name];
  return attribute?.type === 'string' ? attribute.value : '';
}

function refuseFormat({ node }: Pick<Layer, 'node'>, what: string): Error {
  return refuse(
    `${what} (${node.name})`,
    'Use wint8, wint4, w8a8, w4a8, block_wise_fp8, fp8_per_channel or fp8_per_tensor, or write --format fdq.',
  );
}
