import { GraphBuilder, intAttribute } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { Dimension, Graph, GraphNode, Initializer } from '../../graph/ir.js';
import { findDefinition, findValueInfo } from '../../graph/scopes.js';
import { lowerLinear } from '../onnx/lower-linear.js';
import type { StockTensor } from '../onnx/stock-weights.js';
import type { FoundLayer, LayerType } from './layer-view.js';

/** What a layer of a foreign graph becomes. */
export interface Lowered {
  readonly nodes: readonly GraphNode[];
  readonly initializers: ReadonlyMap<string, Initializer>;
  readonly tensors: ReadonlyMap<string, StockTensor>;
}

export interface LayerPlace {
  /** The layer's QuantLinear in the quantized view. */
  readonly node: GraphNode;
  readonly quantized: Graph;
  readonly opsets: ReadonlyMap<string, number>;
  /** Prefix of everything new. */
  readonly path: string;
}

const QUANT_LINEAR_BIAS = 3;

/** Whether MatMulNBits holds a QuantLinear as it is: it multiplies float32 and float16 of any rank. */
export function isOfBlocks({ attributes }: GraphNode): boolean {
  const { format, activation, group_n: groupN } = attributes;
  const isNarrow = format?.type === 'string' && (format.value === 'int4' || format.value === 'int8');
  const isRounded = activation?.type === 'string' && activation.value !== 'none';
  return isNarrow && !isRounded && groupN?.type === 'int' && groupN.value === 1;
}

/**
 * A layer on values of any rank and float type. Where standard operators multiply float32 [tokens, k] only, its input
 * is cast and folded before them, and what they give unfolded and cast behind.
 */
export function lowerLayer(found: FoundLayer, { node, quantized, opsets, path }: LayerPlace): Lowered {
  const [x = ''] = found.node.inputs;
  const [output = ''] = found.node.outputs;
  const rank = findValueInfo(found.scope, x)?.shape?.length;
  const isNative = isOfBlocks(node) && found.type !== 'bfloat16';
  const type = isNative && found.type === 'float16' ? 'float16' : 'float32';
  const isFlat = rank === 2 || (isOfBlocks(node) && rank !== 1);
  const builder = GraphBuilder.create('layer', opsets);
  builder.input(x, found.type, rank === 2 ? ['tokens', found.k] : ['']);
  const scope = builder.scope(path);
  const wide = castTo(scope, x, type);
  const flat = isFlat ? wide : fold(scope, wide, found.k);
  const names = new Map([[node.inputs[0] as string, flat]]);
  const isFused = type === found.type && isRowBias(found);
  if (isFused) names.set(found.bias, builder.input(found.bias, 'float32', ['']));
  const tensors = new Map<string, StockTensor>();
  const lowering = { source: quantized, builder: scope, names, tensors, valueType: type } as const;
  const product = lowerLinear(lowering, isFused ? withBias(node, found.bias) : node);
  const shaped = isFlat ? product : unfold(scope, x, product);
  const value = castTo(scope, shaped, found.type);
  const result = found.bias === '' || isFused ? value : addBias(scope, found, value);
  const graph = builder.build();
  return {
    nodes: graph.nodes.map((each) => renameOutput(each, result, output)),
    initializers: graph.initializers,
    tensors,
  };
}

/** A bias that Gemm and MatMulNBits take: float32 [n]. */
function isRowBias({ scope, bias, type }: FoundLayer): boolean {
  const constant = bias === '' ? undefined : findDefinition(scope, bias)?.initializer;
  return type === 'float32' && constant?.dataType === 'float32' && constant.shape.length === 1;
}

function withBias(node: GraphNode, bias: string): GraphNode {
  const inputs = Array.from({ length: Math.max(node.inputs.length, QUANT_LINEAR_BIAS + 1) }, (_, index) =>
    index === QUANT_LINEAR_BIAS ? bias : (node.inputs[index] ?? ''),
  );
  return { ...node, inputs };
}

/** A bias of another shape or type, or one that is computed. */
function addBias(scope: GraphBuilder, { node, bias, type }: FoundLayer, value: string): string {
  const { shape } = scope.valueInfo(value);
  const name = bias === node.inputs[0] ? bias : scope.input(bias, type, ['']);
  return scope.value({ opType: 'Add', inputs: [value, name], output: { dataType: type, shape } });
}

function castTo(scope: GraphBuilder, value: string, type: LayerType): string {
  const { dataType, shape } = scope.valueInfo(value);
  if (dataType === type) return value;
  return scope.value({
    opType: 'Cast',
    inputs: [value],
    output: { dataType: type, shape },
    attributes: { to: intAttribute(elementTypeOf(type)) },
  });
}

function fold(scope: GraphBuilder, x: string, k: number): string {
  const { dataType } = scope.valueInfo(x);
  const shape = scope.constant('rows_of_k', 'int64', [2], BigInt64Array.of(-1n, BigInt(k)));
  return scope.value({
    opType: 'Reshape',
    inputs: [x, shape],
    output: { dataType, shape: ['tokens', k] },
  });
}

/** [tokens, n] to the shape of x, with n in place of its last size. */
function unfold(scope: GraphBuilder, x: string, product: string): string {
  const { dataType, shape } = scope.valueInfo(product);
  const n = shape[1] as Dimension;
  const int64 = (name: string, value: number): string =>
    scope.constant(name, 'int64', [1], BigInt64Array.of(BigInt(value)));
  const shapeOf = (opType: string, inputs: readonly string[], axis?: number): string =>
    scope.value({
      opType,
      inputs,
      output: { dataType: 'int64', shape: [''] },
      ...(axis === undefined ? {} : { attributes: { axis: intAttribute(axis) } }),
    });
  const all = shapeOf('Shape', [x]);
  const front = shapeOf('Slice', [all, int64('first', 0), int64('last', -1)]);
  const target = shapeOf('Concat', [front, int64('columns', n as number)], 0);
  return scope.value({
    opType: 'Reshape',
    inputs: [product, target],
    output: { dataType, shape: ['', n] },
  });
}

function renameOutput(node: GraphNode, from: string, to: string): GraphNode {
  return { ...node, outputs: node.outputs.map((name) => (name === from ? to : name)) };
}
