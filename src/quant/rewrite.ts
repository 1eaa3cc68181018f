import { BugError } from '../errors.js';
import type { Graph, GraphNode, Initializer, ValueInfo, WeightSource } from '../graph/ir.js';
import { findEmbeddings } from './embeddings.js';
import type { EmbeddingTable } from './embeddings.js';
import { findLinearLayers, fusedWith, withoutWeightSuffix, WEIGHT_SUFFIX } from './linear-layers.js';
import type { LinearLayer } from './linear-layers.js';
import type { LayerDecision, QuantizationPlan } from './plan.js';
import { asQuantGather, QUANT_GATHER } from './quant-gather.js';
import { FDQ_DOMAIN, FDQ_VERSION, QUANT_LINEAR } from './quant-linear.js';
import type { LayerReport } from './report.js';
import type { ComputeType, QuantScheme } from './scheme.js';
import { asFloat32, sliceBias } from './slice-bias.js';

export interface RewriteOptions {
  /** How the inputs of layers travel whose scheme does not round them itself. */
  readonly compute: ComputeType;
}

export interface QuantizedGraph {
  readonly graph: Graph;
  /** One for each member of each linear layer, in graph order. */
  readonly layers: readonly LayerReport[];
}

/** Consecutive members of a layer with the same decision. */
interface Run {
  readonly scheme: QuantScheme;
  /** Half-open range of members. */
  readonly start: number;
  readonly end: number;
}

type PlanDecisions = Pick<QuantizationPlan, 'decisions'>;
type PlannedLayer = Pick<LinearLayer, 'node' | 'members'>;
type LayerParts = Pick<LinearLayer, 'node' | 'x' | 'weight' | 'bias' | 'members'>;

/** What the rewritten graph has so far. */
interface Draft {
  readonly compute: ComputeType;
  readonly names: Set<string>;
  /** How many numbers behind a name were tried. */
  readonly copies: Map<string, number>;
  readonly initializers: Map<string, Initializer>;
  readonly values: Map<string, ValueInfo>;
  /** Weight initializers by what they are made of, so that layers sharing a weight share the result. */
  readonly weights: Map<string, string>;
}

/**
 * A copy of a float graph in which every linear layer is an fdq QuantLinear of the scheme the plan gives it, and every
 * embedding that gets a scheme a QuantGather.
 * A fused layer whose members differ becomes one QuantLinear for each run of equal decisions, and a Concat.
 * Nothing is read: the new initializers say which checkpoint tensors they are quantized from.
 * @param plan made from this very graph
 */
export function quantizeGraph(
  graph: Graph,
  plan: PlanDecisions,
  { compute }: RewriteOptions,
): QuantizedGraph {
  const linear = findLinearLayers(graph);
  const tables = findEmbeddings(graph);
  const replaced = new Map(
    linear.filter(({ obstacle }) => obstacle === undefined).map((layer) => [layer.node.name, layer]),
  );
  const gathered = new Map(
    tables.filter((table) => isQuantized(plan, table)).map((table) => [table.node.name, table]),
  );
  const kept = findKeptNodes(graph, replaced, gathered);
  const draft = startDraft(graph, kept, { replaced, gathered, plan, compute });
  const nodes: GraphNode[] = [];
  const nodeOf = new Map<string, string>();
  for (const node of graph.nodes) {
    const layer = replaced.get(node.name);
    const table = gathered.get(node.name);
    if (layer !== undefined) nodes.push(...replaceLayer(draft, graph, layer, { plan, nodeOf }));
    else if (table !== undefined) nodes.push(replaceTable(draft, table, { plan, nodeOf }));
    else if (kept.has(node)) nodes.push(node);
  }
  const linearWeights = new Set(linear.map(({ weight }) => weight.name));
  // A tied embedding is reported once, as the linear layer it is.
  const layers = [...tables.filter(({ weight }) => !linearWeights.has(weight.name)), ...linear];
  const reports = layers.flatMap((layer) => reportLayer(layer, decisionsOf(plan, layer), nodeOf));
  return {
    graph: {
      ...graph,
      opsets: new Map([[FDQ_DOMAIN, FDQ_VERSION], ...graph.opsets]),
      nodes,
      initializers: draft.initializers,
      values: draft.values,
    },
    layers: reports,
  };
}

interface LayerContext {
  readonly plan: PlanDecisions;
  /** Collects the node of each member, by `memberKey`. */
  readonly nodeOf: Map<string, string>;
}

function replaceLayer(
  draft: Draft,
  graph: Graph,
  layer: LinearLayer,
  { plan, nodeOf }: LayerContext,
): readonly GraphNode[] {
  const runs = findRuns(layer, decisionsOf(plan, layer));
  const folder = folderOf(layer.node);
  const output = layer.node.outputs[0] as string;
  const whole = runs.length === 1;
  const outputs: string[] = [];
  const nodes = runs.map((run) => {
    const label = whole ? '' : `/${labelOf(layer, run)}`;
    const name = claimName(draft, `${folder}${label}/${QUANT_LINEAR}`);
    const target = whole ? output : claimName(draft, `${name}_output_0`);
    if (!whole) addValue(draft, graph, { output, target, rows: countRows(layer, run.start, run.end) });
    for (let member = run.start; member < run.end; member++) nodeOf.set(memberKey(layer, member), name);
    outputs.push(target);
    return emitRun(draft, layer, run, { node: name, output: target });
  });
  if (whole) return nodes.flat();
  const concat: GraphNode = {
    name: claimName(draft, `${folder}/Concat`),
    domain: '',
    opType: 'Concat',
    inputs: outputs,
    outputs: [output],
    attributes: { axis: { type: 'int', value: 1 } },
  };
  return [...nodes.flat(), concat];
}

/** A QuantGather in place of a Gather and the Cast behind it. */
function replaceTable(draft: Draft, table: EmbeddingTable, { plan, nodeOf }: LayerContext): GraphNode {
  const [decision] = decisionsOf(plan, table) as readonly [LayerDecision];
  const run: Run = { scheme: decision.scheme, start: 0, end: 1 };
  const node = claimName(draft, `${folderOf(table.node)}/${QUANT_GATHER}`);
  nodeOf.set(memberKey(table, 0), node);
  const layer = { ...table, x: table.ids, bias: undefined };
  return asQuantGather(emitRun(draft, layer, run, { node, output: table.output }).at(-1) as GraphNode);
}

/** The node of a run, behind those that prepare its input. */
function emitRun(
  draft: Draft,
  layer: LayerParts,
  run: Run,
  { node, output }: { readonly node: string; readonly output: string },
): readonly GraphNode[] {
  const { scheme } = run;
  const members = layer.members.map(({ source }) => source);
  const key = `${layer.weight.name}\n${run.start}-${run.end}\n${scheme.name}`;
  const shared = draft.weights.get(key);
  const weight = sliceWeight(layer, run, shared);
  const named = shared === undefined ? claimWeight(draft, weight, scheme) : weight;
  const result = scheme.emit({
    node,
    x: layer.x,
    bias: addBias(draft, layer, run),
    output,
    weight: named,
    members: members.slice(run.start, run.end),
    fused: fusedWith(members[run.start] as WeightSource, members),
    compute: draft.compute,
  });
  if (shared === undefined) {
    draft.weights.set(key, named.name);
    for (const initializer of result.initializers) {
      draft.initializers.set(initializer.name, initializer);
      draft.names.add(initializer.name);
    }
  }
  return [...(result.before ?? []), result.node];
}

/** The float weight of a run: the layer's own initializer when it is all of it. */
function sliceWeight(layer: LayerParts, run: Run, name: string | undefined): Initializer {
  const { weight, members } = layer;
  const sources = members.slice(run.start, run.end).map(({ source }) => source);
  if (sources.length === members.length) return name === undefined ? weight : { ...weight, name };
  const k = weight.shape[1] as number;
  return {
    name: name ?? partName(layer, run),
    dataType: weight.dataType,
    shape: [countRows(layer, run.start, run.end), k],
    data: { kind: 'weight', members: sources },
  };
}

/** Initializers that a quantized weight may have beside it. */
const PARTS = ['scales', 'block_scales', 'zero_points', 'column_order'] as const;

/** Gives the weight a name that no other initializer has; one used as it is stored keeps the one it has. */
function claimWeight(draft: Draft, weight: Initializer, scheme: QuantScheme): Initializer {
  if (draft.initializers.get(weight.name) === weight && scheme.native === null) return weight;
  const isFree = (name: string): boolean =>
    [name, ...PARTS.map((part) => `${name}.${part}`)].every((taken) => !draft.names.has(taken));
  let name = weight.name;
  for (let copy = 0; !isFree(name); copy++) {
    name = `${weight.name}.${scheme.name}${copy === 0 ? '' : `_${copy}`}`;
  }
  return name === weight.name ? weight : { ...weight, name };
}

/** Name of the run's float32 bias, '' for none. */
function addBias(draft: Draft, layer: LayerParts, run: Run): string {
  if (layer.bias === undefined) return '';
  const bias = asFloat32(layer.bias);
  if (run.end - run.start === layer.members.length) {
    if (draft.initializers.get(bias.name) === bias) return bias.name;
    return setInitializer(draft, bias);
  }
  const name = `${withoutWeightSuffix(partName(layer, run))}.bias`;
  const range = [countRows(layer, 0, run.start), countRows(layer, 0, run.end)] as const;
  return setInitializer(draft, sliceBias(bias, name, range));
}

function setInitializer(draft: Draft, initializer: Initializer): string {
  const name = claimName(draft, initializer.name);
  draft.initializers.set(name, name === initializer.name ? initializer : { ...initializer, name });
  return name;
}

/** The draft without the layers: what other nodes read keeps its name. */
function startDraft(
  graph: Graph,
  kept: ReadonlySet<GraphNode>,
  rest: {
    readonly replaced: ReadonlyMap<string, LinearLayer>;
    readonly gathered: ReadonlyMap<string, EmbeddingTable>;
    readonly plan: PlanDecisions;
    readonly compute: ComputeType;
  },
): Draft {
  const read = new Set(graph.outputs.map(({ name }) => name));
  for (const node of kept) for (const input of node.inputs) read.add(input);
  for (const layer of rest.replaced.values()) {
    const isStored = decisionsOf(rest.plan, layer).every(({ scheme }) => scheme.native === null);
    if (isStored) read.add(layer.weight.name);
    if (layer.bias?.dataType === 'float32' && isWholeRun(rest.plan, layer)) read.add(layer.bias.name);
  }
  const initializers = new Map([...graph.initializers].filter(([name]) => read.has(name)));
  const produced = graph.nodes.flatMap(({ outputs }) => outputs);
  const names = [...graph.inputs.map(({ name }) => name), ...produced, ...[...kept].map(({ name }) => name)];
  const dead = new Set(
    graph.nodes
      .filter((node) => !kept.has(node) && !rest.replaced.has(node.name))
      .flatMap((node) => node.outputs),
  );
  for (const { output } of rest.gathered.values()) dead.delete(output);
  return {
    compute: rest.compute,
    names: new Set([...names, ...initializers.keys()]),
    copies: new Map(),
    initializers,
    values: new Map([...graph.values].filter(([name]) => !dead.has(name))),
    weights: new Map(),
  };
}

/** Nodes that stay: all but the layers to replace, and the Transposes and Casts nothing else reads. */
function findKeptNodes(
  graph: Graph,
  replaced: ReadonlyMap<string, LinearLayer>,
  gathered: ReadonlyMap<string, EmbeddingTable>,
): ReadonlySet<GraphNode> {
  const casts = new Set([...gathered.values()].map(({ cast }) => cast));
  const others = graph.nodes.filter(
    (node) => !replaced.has(node.name) && !gathered.has(node.name) && !casts.has(node),
  );
  const read = new Set([...graph.outputs.map(({ name }) => name), ...others.flatMap(({ inputs }) => inputs)]);
  const operands = new Set([...replaced.values()].map(({ node }) => node.inputs[1] as string));
  return new Set(
    others.filter(({ outputs }) => {
      const [output = ''] = outputs;
      return !operands.has(output) || read.has(output);
    }),
  );
}

function isQuantized(plan: PlanDecisions, table: EmbeddingTable): boolean {
  return table.obstacle === undefined && decisionsOf(plan, table)[0]?.scheme.native !== null;
}

function decisionsOf(plan: PlanDecisions, layer: PlannedLayer): readonly LayerDecision[] {
  const decisions = plan.decisions.get(layer.node.name);
  if (decisions?.length !== layer.members.length) {
    throw new BugError(`the plan says nothing about ${layer.node.name}: it was made for another graph`);
  }
  return decisions;
}

function isWholeRun(plan: PlanDecisions, layer: LinearLayer): boolean {
  return findRuns(layer, decisionsOf(plan, layer)).length === 1;
}

/** Weights that lie quantized in the checkpoint are read in another way than those quantized now. */
function findRuns({ members }: PlannedLayer, decisions: readonly LayerDecision[]): readonly Run[] {
  const runs: Run[] = [];
  for (const [index, { scheme }] of decisions.entries()) {
    const last = runs.at(-1);
    const isStored = members[index]?.source.stored !== undefined;
    const continues =
      last?.scheme === scheme && isStored === (members[index - 1]?.source.stored !== undefined);
    if (continues) runs[runs.length - 1] = { ...last, end: index + 1 };
    else runs.push({ scheme, start: index, end: index + 1 });
  }
  return runs;
}

function countRows(layer: PlannedLayer, start: number, end: number): number {
  return layer.members.slice(start, end).reduce((sum, { source }) => sum + (source.shape[0] as number), 0);
}

/** `q_proj+k_proj` */
function labelOf(layer: PlannedLayer, { start, end }: Run): string {
  return layer.members
    .slice(start, end)
    .map(({ name }) => name.slice(name.lastIndexOf('.') + 1))
    .join('+');
}

/** `model.layers.0.self_attn.q_proj+k_proj.weight`; one member keeps the checkpoint's name. */
function partName(layer: PlannedLayer, run: Run): string {
  const { name, source } = layer.members[run.start] as (typeof layer.members)[number];
  if (run.end - run.start === 1) return source.name;
  return `${name.slice(0, name.lastIndexOf('.') + 1)}${labelOf(layer, run)}${WEIGHT_SUFFIX}`;
}

/** `/model/layers.0/self_attn/qkv_proj/Gemm` without the operator. */
function folderOf({ name, opType }: GraphNode): string {
  return name.replace(new RegExp(`/${opType}(?:_\\d+)?$`), '');
}

/** Copies are counted, so that many layers of one name cost no more than others. */
function claimName({ names, copies }: Draft, wanted: string): string {
  let name = wanted;
  let copy = copies.get(wanted) ?? 0;
  while (names.has(name)) name = `${wanted}_${++copy}`;
  copies.set(wanted, copy);
  names.add(name);
  return name;
}

function addValue(
  draft: Draft,
  graph: Graph,
  part: { readonly output: string; readonly target: string; readonly rows: number },
): void {
  const info = graph.values.get(part.output) ?? graph.outputs.find(({ name }) => name === part.output);
  const tokens = info?.shape[0];
  if (tokens === undefined) return;
  draft.values.set(part.target, { name: part.target, dataType: 'float32', shape: [tokens, part.rows] });
}

function memberKey(layer: PlannedLayer, member: number): string {
  return `${layer.node.name}\n${member}`;
}

function reportLayer(
  layer: LinearLayer | EmbeddingTable,
  decisions: readonly LayerDecision[],
  nodeOf: ReadonlyMap<string, string>,
): readonly LayerReport[] {
  return layer.members.map(({ name, source }, index) => {
    const { scheme, reason } = decisions[index] as LayerDecision;
    const dataType = scheme.native === null ? layer.weight.dataType : source.dataType;
    return {
      name,
      tensor: source.name,
      node: nodeOf.get(memberKey(layer, index)) ?? layer.node.name,
      shape: source.shape,
      storedType: source.dataType,
      scheme: scheme.name,
      reason,
      bytesBefore: source.byteLength,
      bytesAfter:
        layer.obstacle === undefined ? scheme.bytes({ dataType, shape: source.shape }) : source.byteLength,
    };
  });
}
