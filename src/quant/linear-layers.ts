import type { Graph, GraphNode, Initializer, ValueInfo, WeightSource } from '../graph/ir.js';
import { FLOAT_TYPES, isFloatType } from './numerics/floats.js';

/** One checkpoint matrix of a linear layer. */
export interface LayerMember {
  /** Unfused name without `.weight`, e.g. `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  readonly source: WeightSource;
}

/** A node y = x W^T (+ bias) with a lazy weight: the unit the quantizer replaces. */
export interface LinearLayer {
  readonly node: GraphNode;
  readonly x: string;
  /** [sum of n_i, k], of kind 'weight'. */
  readonly weight: Initializer;
  /** [sum of n_i], or undefined for none. */
  readonly bias: Initializer | undefined;
  readonly members: readonly [LayerMember, ...LayerMember[]];
  /** Names of the layer as a whole: that of its weight and that of its place in the graph. */
  readonly names: readonly string[];
  /** Why the node cannot become a QuantLinear and stays what it is. */
  readonly obstacle: string | undefined;
}

export const WEIGHT_SUFFIX = '.weight';

export function withoutWeightSuffix(name: string): string {
  return name.endsWith(WEIGHT_SUFFIX) ? name.slice(0, -WEIGHT_SUFFIX.length) : name;
}

/** Every Gemm and MatMul whose second operand is a lazy weight, as it is or through a Transpose. */
export function findLinearLayers(graph: Graph): readonly LinearLayer[] {
  const producers = new Map(
    graph.nodes
      .filter((node) => node.domain === '' && node.opType === 'Transpose' && swapsAxes(node))
      .map((node) => [node.outputs[0] as string, node]),
  );
  const inputs = new Map(graph.inputs.map((input) => [input.name, input]));
  return graph.nodes.flatMap((node) => {
    const layer = describeLayer(graph, node, { transposes: producers, inputs });
    return layer === undefined ? [] : [layer];
  });
}

function describeLayer(
  graph: Graph,
  node: GraphNode,
  {
    transposes,
    inputs,
  }: {
    readonly transposes: ReadonlyMap<string, GraphNode>;
    readonly inputs: ReadonlyMap<string, ValueInfo>;
  },
): LinearLayer | undefined {
  if (node.domain !== '' || (node.opType !== 'Gemm' && node.opType !== 'MatMul')) return undefined;
  const [x = '', operand = '', biasName = ''] = node.inputs;
  const transpose = transposes.get(operand);
  const weight = graph.initializers.get(transpose?.inputs[0] ?? operand);
  if (weight?.data.kind !== 'weight') return undefined;
  const [first, ...rest] = weight.data.members.map((source) => ({
    name: withoutWeightSuffix(source.name),
    source,
  }));
  if (first === undefined) return undefined;
  const bias = graph.initializers.get(biasName);
  const isTransposed = (transpose !== undefined) !== (numberAttribute(node, 'transB', 0) === 1);
  return {
    node,
    x,
    weight,
    bias,
    members: [first, ...rest],
    names: layerNames(weight.name, node.name),
    obstacle:
      findWeightObstacle(weight, isTransposed) ??
      findInputObstacle(node, graph.values.get(x) ?? inputs.get(x)) ??
      (biasName === '' ? undefined : findBiasObstacle(bias, weight.shape[0] as number)),
  };
}

/** Without `perm` a Transpose reverses the axes. */
function swapsAxes({ attributes }: GraphNode): boolean {
  const perm = attributes['perm'];
  return perm?.type !== 'ints' || perm.value.join() === '1,0';
}

/** The members of a fused layer whose tensor scale is that of `source`: floats apart from what is stored quantized. */
export function fusedWith(
  { stored }: WeightSource,
  members: readonly WeightSource[],
): readonly WeightSource[] {
  return members.filter((member) => (member.stored === undefined) === (stored === undefined));
}

/** `/model/layers.0/self_attn/qkv_proj/Gemm` is the layer `model.layers.0.self_attn.qkv_proj`. */
function layerNames(weight: string, node: string): readonly string[] {
  const path = node.split('/').filter((part) => part !== '');
  return [...new Set([withoutWeightSuffix(weight), path.slice(0, -1).join('.')])].filter(
    (name) => name !== '',
  );
}

/** Why a weight of a layer, [n, k] or the transpose of it, cannot be quantized. */
export function findWeightObstacle(
  { shape, data, dataType }: Initializer,
  isTransposed: boolean,
): string | undefined {
  if (!isFloatType(dataType)) return `its weight is stored as ${dataType}, not as ${FLOAT_TYPES.join(', ')}`;
  if (shape.length !== 2) return `its weight has shape [${shape.join(', ')}], not [n, k]`;
  if (!isTransposed) return 'its weight is stored as [k, n], not [n, k]';
  if (data.kind === 'weight' && (data.addend ?? 0) !== 0) return 'its weight is changed while it is read';
  return undefined;
}

function findInputObstacle(node: GraphNode, info: ValueInfo | undefined): string | undefined {
  for (const [name, neutral] of [['transA', 0] as const, ['alpha', 1] as const, ['beta', 1] as const]) {
    const value = numberAttribute(node, name, neutral);
    if (value !== neutral) return `its ${node.opType} has ${name} ${value}`;
  }
  if (info === undefined) {
    return node.opType === 'Gemm' ? undefined : 'the shape of its input is not known';
  }
  if (info.shape.length !== 2) return `its input has ${info.shape.length} dimensions, not [tokens, k]`;
  return info.dataType === 'float32' ? undefined : `its input is ${info.dataType}, not float32`;
}

function findBiasObstacle(bias: Initializer | undefined, n: number): string | undefined {
  if (bias === undefined) return 'its bias is computed';
  if (bias.shape.length !== 1 || bias.shape[0] !== n) {
    return `its bias has shape [${bias.shape.join(', ')}], not [${n}]`;
  }
  const isFloat = bias.dataType === 'float32' || bias.data.kind === 'weight';
  return isFloat ? undefined : `its bias is ${bias.dataType}, not float32`;
}

/** The number an attribute holds, or `absent` for none. */
export function numberAttribute(node: GraphNode, name: string, absent: number): number {
  const attribute = node.attributes[name];
  return attribute?.type === 'int' || attribute?.type === 'float' ? attribute.value : absent;
}
