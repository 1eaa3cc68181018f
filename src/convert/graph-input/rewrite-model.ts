import { BugError, UnsupportedError } from '../../errors.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { Graph, GraphNode, Initializer, Subgraph } from '../../graph/ir.js';
import { listInitializers, listScopes, mapBodies, mapInitializers, readsOf } from '../../graph/scopes.js';
import { findGraphProblem } from '../../graph/validate.js';
import type { StockTensor } from '../onnx/stock-weights.js';
import type { LayerView } from './layer-view.js';
import { lowerExperts } from './lower-experts.js';
import { lowerLayer, type Lowered } from './lower-layer.js';

/** A foreign graph with layers of standard operators, and where its large tensors come from. */
export interface RewrittenModel {
  readonly graph: Graph;
  readonly tensors: readonly StockTensor[];
  /** Tensors that stay as they are, in files of the model; each has a name that nothing else to be written has. */
  readonly kept: readonly Initializer[];
  /** Initializers of `graph` that lie in a file → their names among `tensors` and `kept`. */
  readonly places: ReadonlyMap<Initializer, string>;
}

const MICROSOFT = 'com.microsoft';
const QUANT_LINEAR = 'QuantLinear';
const FLOAT8 = elementTypeOf('float8e4m3fn');

/**
 * Puts quantized layers into the graphs they were found in; everything else stays, value for value. What is new, and
 * weights that bodies share, is the outermost graph's.
 * @param quantized the graph of the view, after quantization
 * @throws UnsupportedError `unsupported_model` when the graph's operator set is older than what a layer needs, and as
 *   `lowerLinear` and `lowerExperts`
 */
export function rewriteModel(source: Graph, view: LayerView, quantized: Graph): RewrittenModel {
  const rewriter = new Rewriter(source, view, quantized);
  const { nodes, initializers } = rewriter.rewrite(source);
  const opsets = rewriter.opsets;
  const all = new Map([...initializers, ...rewriter.added]);
  const graph = { ...source, opsets, nodes, initializers: all };
  const problem = findGraphProblem(mapInitializers(graph, withoutData));
  if (problem !== undefined) throw new BugError(`the rewritten graph is not valid: ${problem}`);
  const tensors = [...rewriter.tensors.values()];
  return { graph, tensors, ...nameKept(graph, tensors) };
}

/**
 * What each layer becomes by itself, by the name of its node; the reason where its scheme cannot be written.
 * @param quantized the graph of the view, after quantization
 */
export function lowerEach(
  source: Graph,
  view: LayerView,
  quantized: Graph,
): ReadonlyMap<string, Lowered | UnsupportedError> {
  const rewriter = new Rewriter(source, view, quantized);
  const nodes = [...view.layers.values(), ...view.experts.values()].map(({ node }) => node);
  return new Map(
    nodes.flatMap((node) => {
      const lowered = tryLower(() => rewriter.lower(node));
      return lowered === undefined ? [] : [[node.name, lowered] as const];
    }),
  );
}

function tryLower(lower: () => Lowered | undefined): Lowered | UnsupportedError | undefined {
  try {
    return lower();
  } catch (error) {
    if (error instanceof UnsupportedError) return error;
    throw error;
  }
}

/** Names of bodies may be used twice in a model. */
function nameKept(graph: Graph, tensors: readonly StockTensor[]): Pick<RewrittenModel, 'kept' | 'places'> {
  const taken = new Set(tensors.map(({ target }) => target.name));
  const targets = new Set(tensors.map(({ target }) => target));
  const places = new Map<Initializer, string>();
  const kept: Initializer[] = [];
  for (const initializer of listInitializers(graph)) {
    if (initializer.data.kind !== 'external') continue;
    if (targets.has(initializer)) {
      places.set(initializer, initializer.name);
      continue;
    }
    let name = initializer.name;
    for (let copy = 1; taken.has(name); copy++) name = `${initializer.name}_${copy}`;
    taken.add(name);
    places.set(initializer, name);
    kept.push({ ...initializer, name });
  }
  return { kept, places };
}

/** Collects what layers become while graphs are walked. */
class Rewriter {
  readonly opsets: ReadonlyMap<string, number>;
  readonly added = new Map<string, Initializer>();
  readonly tensors = new Map<string, StockTensor>();
  readonly #source: Graph;
  readonly #view: LayerView;
  readonly #quantized: Graph;
  /** Quantized layers by the names of their products in the view. */
  readonly #layers: ReadonlyMap<string, GraphNode>;
  readonly #prefix: string;
  #count = 0;

  constructor(source: Graph, view: LayerView, quantized: Graph) {
    this.#source = source;
    this.#view = view;
    this.#quantized = quantized;
    this.#layers = new Map(
      quantized.nodes
        .filter((node) => isQuantized(quantized, node))
        .map((node) => [node.outputs[0] as string, node]),
    );
    this.#prefix = freePrefix(source);
    this.opsets = new Map([...source.opsets, [MICROSOFT, source.opsets.get(MICROSOFT) ?? 1]]);
  }

  rewrite<G extends Graph | Subgraph>(graph: G): Pick<G, 'nodes' | 'initializers'> {
    const nodes = graph.nodes.flatMap((node) => this.#rewriteNode(node));
    const live = withoutDeadNodes(graph, nodes);
    const read = new Set([...live.flatMap(readsOf), ...graph.outputs.map(({ name }) => name)]);
    const initializers = new Map([...graph.initializers].filter(([name]) => read.has(name)));
    return { nodes: live, initializers };
  }

  #rewriteNode(node: GraphNode): readonly GraphNode[] {
    const lowered = this.lower(node);
    if (lowered === undefined) return [mapBodies(node, (body) => ({ ...body, ...this.rewrite(body) }))];
    for (const [name, initializer] of lowered.initializers) {
      // Layers that share a weight share the tensor.
      if (!this.tensors.has(name)) this.added.set(name, initializer);
    }
    for (const [name, tensor] of lowered.tensors) if (!this.tensors.has(name)) this.tensors.set(name, tensor);
    return lowered.nodes;
  }

  /** undefined for a node that stays. */
  lower(node: GraphNode): Lowered | undefined {
    const lowered = this.#lowerQuantized(node);
    for (const each of lowered?.nodes ?? []) checkOpset(this.#source, node, each);
    return lowered;
  }

  #lowerQuantized(node: GraphNode): Lowered | undefined {
    const place = { quantized: this.#quantized, opsets: this.opsets };
    const found = this.#view.layers.get(node.name);
    const layer = this.#layers.get(found?.output ?? '');
    if (found !== undefined && layer !== undefined)
      return lowerLayer(found, { ...place, node: layer, path: this.#nextPath() });
    const experts = this.#view.experts.get(node.name);
    if (experts === undefined) return undefined;
    const parts = experts.parts.flatMap(({ output }) => this.#layers.get(output) ?? []);
    if (parts.length === 0) return undefined;
    return lowerExperts(experts, { ...place, parts, path: this.#nextPath() });
  }

  #nextPath(): string {
    return `${this.#prefix}/${this.#count++}`;
  }
}

function isQuantized({ initializers }: Graph, { opType, inputs }: GraphNode): boolean {
  return opType === QUANT_LINEAR && initializers.get(inputs[1] as string)?.data.kind === 'quantized';
}

/** A name that nothing of the graph, or of a body, starts with. */
function freePrefix(source: Graph): string {
  const taken = listScopes(source).flatMap(({ graph }) => [
    ...graph.initializers.keys(),
    ...graph.inputs.map(({ name }) => name),
    ...graph.nodes.flatMap(({ name, outputs }) => [name, ...outputs]),
  ]);
  let prefix = 'quantized';
  for (let copy = 1; taken.some((name) => name.startsWith(`/${prefix}/`)); copy++)
    prefix = `quantized_${copy}`;
  return prefix;
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
        'wint8 and wint4 round weights alone and need operator set 13 at most.',
      ],
    },
  );
}

/** Without Transposes and Casts of weights that nothing reads any more, from back to front. */
function withoutDeadNodes(
  { outputs: wanted }: Pick<Subgraph, 'outputs'>,
  nodes: readonly GraphNode[],
): readonly GraphNode[] {
  const read = new Set(wanted.map(({ name }) => name));
  const live = [...nodes].reverse().filter((node) => {
    const { opType, domain, outputs } = node;
    const isCarrier = domain === '' && (opType === 'Transpose' || opType === 'Cast');
    if (isCarrier && !outputs.some((name) => read.has(name))) return false;
    for (const name of readsOf(node)) read.add(name);
    return true;
  });
  return live.reverse();
}

/** Sizes of tensors that are yet to be written are not known to be right. */
function withoutData(initializer: Initializer): Initializer {
  return { ...initializer, data: { kind: 'weight' as const, members: [] } };
}
