import { BugError, UnsupportedError } from '../../errors.js';
import { GraphBuilder, intAttribute } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { Dimension, Graph, GraphNode, Initializer } from '../../graph/ir.js';
import { findGraphProblem } from '../../graph/validate.js';
import { lowerLinear } from '../onnx/lower-linear.js';
import type { StockTensor } from '../onnx/stock-weights.js';

/** A foreign graph with layers of standard operators, and where its large tensors come from. */
export interface RewrittenModel {
  readonly graph: Graph;
  readonly tensors: readonly StockTensor[];
  /** Tensors that stay as they are, in files of the model. */
  readonly kept: readonly Initializer[];
}

interface LoweredLayer {
  readonly nodes: readonly GraphNode[];
  readonly initializers: ReadonlyMap<string, Initializer>;
  readonly tensors: ReadonlyMap<string, StockTensor>;
}

const MICROSOFT = 'com.microsoft';
const QUANT_LINEAR = 'QuantLinear';
const FLOAT8 = elementTypeOf('float8e4m3fn');

/**
 * Puts quantized layers into the graph they were found in; everything else stays, value for value.
 * @param quantized the view of `findLayers`, after quantization
 * @throws UnsupportedError `unsupported_model` when the graph's operator set is older than what a layer needs, and as
 *   `lowerLinear`
 */
export function rewriteModel(source: Graph, quantized: Graph): RewrittenModel {
  const layers = new Map(
    quantized.nodes.filter((node) => isQuantized(quantized, node)).map((node) => [node.outputs[0], node]),
  );
  const prefix = freePrefix(source);
  const opsets = new Map([...source.opsets, [MICROSOFT, source.opsets.get(MICROSOFT) ?? 1]]);
  const nodes: GraphNode[] = [];
  const added = new Map<string, Initializer>();
  const tensors = new Map<string, StockTensor>();
  for (const [index, node] of source.nodes.entries()) {
    const layer = layers.get(node.outputs[0]);
    if (layer === undefined) {
      nodes.push(node);
      continue;
    }
    const builder = GraphBuilder.create('layer', opsets);
    const lowered = lowerLayer(source, { node: layer, quantized, builder, path: `${prefix}/${index}` });
    lowered.nodes.forEach((each) => checkOpset(source, node, each));
    nodes.push(...lowered.nodes);
    for (const [name, initializer] of lowered.initializers) added.set(name, initializer);
    for (const [name, tensor] of lowered.tensors) tensors.set(name, tensor);
  }
  const live = withoutDeadNodes(source, nodes);
  const read = new Set([...live.flatMap(({ inputs }) => inputs), ...source.outputs.map(({ name }) => name)]);
  const originals = [...source.initializers].filter(([name]) => read.has(name));
  const graph = { ...source, opsets, nodes: live, initializers: new Map([...originals, ...added]) };
  const problem = findGraphProblem({ ...graph, initializers: withoutData(graph.initializers) });
  if (problem !== undefined) throw new BugError(`the rewritten graph is not valid: ${problem}`);
  const kept = originals
    .map(([, each]) => each)
    .filter(({ name, data }) => data.kind === 'external' && !tensors.has(name));
  return { graph, tensors: [...tensors.values()], kept };
}

function isQuantized({ initializers }: Graph, { opType, inputs }: GraphNode): boolean {
  return opType === QUANT_LINEAR && initializers.get(inputs[1] as string)?.data.kind === 'quantized';
}

/** A name that nothing of the graph starts with. */
function freePrefix(graph: Graph): string {
  const taken = [
    ...graph.initializers.keys(),
    ...graph.nodes.flatMap(({ name, outputs }) => [name, ...outputs]),
  ];
  let prefix = 'quantized';
  for (let copy = 1; taken.some((name) => name.startsWith(`/${prefix}/`)); copy++)
    prefix = `quantized_${copy}`;
  return prefix;
}

interface LayerPlace {
  /** A QuantLinear of the quantized view. */
  readonly node: GraphNode;
  readonly quantized: Graph;
  readonly builder: GraphBuilder;
  readonly path: string;
}

/** The layer on [tokens, k]; an input of another rank, or of one not known, is folded before and unfolded behind. */
function lowerLayer(source: Graph, { node, quantized, builder, path }: LayerPlace): LoweredLayer {
  const [x = ''] = node.inputs;
  const [output = ''] = node.outputs;
  const k = quantized.inputs.find(({ name }) => name === x)?.shape[1] as number;
  const known = [...source.inputs, ...source.values.values()].find(({ name }) => name === x);
  const isFlat = known?.shape.length === 2;
  builder.input(x, 'float32', isFlat ? ['tokens', k] : ['']);
  const scope = builder.scope(path);
  const flat = isFlat ? x : fold(scope, x, k);
  const tensors = new Map<string, StockTensor>();
  const lowering = { source: quantized, builder: scope, names: new Map([[x, flat]]), tensors };
  const result = lowerLinear(lowering, node);
  if (!isFlat) unfold(scope, { x, result, output });
  const graph = builder.build();
  const nodes = isFlat ? graph.nodes.map((each) => renameOutput(each, result, output)) : graph.nodes;
  return { nodes, initializers: graph.initializers, tensors };
}

function fold(scope: GraphBuilder, x: string, k: number): string {
  const shape = scope.constant('rows_of_k', 'int64', [2], BigInt64Array.of(-1n, BigInt(k)));
  return scope.value({
    opType: 'Reshape',
    inputs: [x, shape],
    output: { dataType: 'float32', shape: ['tokens', k] },
  });
}

/** [tokens, n] to the shape of x, with n in place of its last size. */
function unfold(
  scope: GraphBuilder,
  { x, result, output }: { readonly x: string; readonly result: string; readonly output: string },
): void {
  const n = scope.valueInfo(result).shape[1] as Dimension;
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
  scope.value({
    opType: 'Reshape',
    inputs: [result, target],
    output: { name: output, dataType: 'float32', shape: ['', n] },
  });
}

function renameOutput(node: GraphNode, from: string, to: string): GraphNode {
  return { ...node, outputs: node.outputs.map((name) => (name === from ? to : name)) };
}

/** The first version of the standard operators that has a node as it is written here. */
function neededOpset({ domain, opType, attributes }: GraphNode): number {
  if (domain !== '') return 0;
  const to = attributes['to'];
  if (opType === 'DequantizeLinear') return attributes['block_size'] === undefined ? 19 : 21;
  if (opType === 'Cast' && to?.type === 'int' && to.value === FLOAT8) return 19;
  if (opType === 'Cast' && attributes['saturate'] !== undefined) return 19;
  return opType === 'ReduceMax' || opType === 'Pad' ? 18 : 13;
}

function checkOpset({ opsets }: Graph, layer: GraphNode, node: GraphNode): void {
  const found = opsets.get('') ?? 0;
  const needed = neededOpset(node);
  if (found >= needed) return;
  throw new UnsupportedError(
    'unsupported_model',
    `The layer "${layer.name}" becomes ${node.opType} of operator set ${needed}, but the model is of ${found}.`,
    {
      param: layer.name,
      suggestions: [
        `Export the model with operator set ${needed} or newer, or convert it with onnx.version_converter.`,
        'Schemes of weights alone, such as wint8 and wint4, need operator set 13.',
      ],
    },
  );
}

/** Without Transposes and Casts of weights that nothing reads any more, from back to front. */
function withoutDeadNodes({ outputs: wanted }: Graph, nodes: readonly GraphNode[]): readonly GraphNode[] {
  const read = new Set(wanted.map(({ name }) => name));
  const live = [...nodes].reverse().filter(({ opType, domain, inputs, outputs }) => {
    const isCarrier = domain === '' && (opType === 'Transpose' || opType === 'Cast');
    if (isCarrier && !outputs.some((name) => read.has(name))) return false;
    for (const name of inputs) read.add(name);
    return true;
  });
  return live.reverse();
}

/** Sizes of tensors that are yet to be written are not known to be right. */
function withoutData(initializers: ReadonlyMap<string, Initializer>): ReadonlyMap<string, Initializer> {
  return new Map(
    [...initializers].map(([name, each]) => [
      name,
      { ...each, data: { kind: 'weight' as const, members: [] } },
    ]),
  );
}
