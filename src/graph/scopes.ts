import type { Attribute, Graph, GraphNode, Initializer, Subgraph, ValueInfo } from './ir.js';

/** A graph or a body, and the graphs around it. */
export interface Scope {
  readonly graph: Graph | Subgraph;
  readonly outer: Scope | undefined;
  /** Node of this graph by the values it makes. */
  readonly producers: ReadonlyMap<string, GraphNode>;
}

/** What a name stands for where it is read. */
export interface Definition {
  /** The graph that defines it. */
  readonly scope: Scope;
  readonly initializer: Initializer | undefined;
  readonly producer: GraphNode | undefined;
}

export function bodiesOf({ attributes }: GraphNode): readonly Subgraph[] {
  return Object.values(attributes).flatMap((attribute) =>
    attribute.type === 'graph' ? [attribute.value] : attribute.type === 'graphs' ? attribute.value : [],
  );
}

/** The graph itself, then the bodies of its nodes, each before those inside of it. */
export function listScopes(graph: Graph): readonly Scope[] {
  const scopes: Scope[] = [openScope(graph, undefined)];
  for (const scope of scopes) {
    for (const node of scope.graph.nodes)
      for (const body of bodiesOf(node)) scopes.push(openScope(body, scope));
  }
  return scopes;
}

function openScope(graph: Graph | Subgraph, outer: Scope | undefined): Scope {
  const producers = new Map(
    graph.nodes.flatMap((node) => node.outputs.map((output) => [output, node] as const)),
  );
  return { graph, outer, producers };
}

/** The innermost definition of a name; undefined when nothing defines it. */
export function findDefinition(scope: Scope, name: string): Definition | undefined {
  for (let each: Scope | undefined = scope; each !== undefined; each = each.outer) {
    const initializer = each.graph.initializers.get(name);
    const producer = each.producers.get(name);
    const isInput = each.graph.inputs.some((input) => input.name === name);
    if (initializer !== undefined || producer !== undefined || isInput)
      return { scope: each, initializer, producer };
  }
  return undefined;
}

/** What is known of a value where it is read. */
export function findValueInfo(scope: Scope, name: string): Partial<ValueInfo> | undefined {
  const graph = findDefinition(scope, name)?.scope.graph;
  return (
    graph?.inputs.find((input) => input.name === name) ??
    graph?.values.get(name) ??
    graph?.outputs.find((output) => output.name === name)
  );
}

/** Values a node needs: its inputs, and what its bodies read of the graphs around them. */
export function readsOf(node: GraphNode): readonly string[] {
  const bodies = bodiesOf(node);
  if (bodies.length === 0) return node.inputs;
  return [...node.inputs, ...bodies.flatMap((body) => [...findFree(body)])];
}

/** Names a body reads and does not define. */
function findFree(body: Subgraph): ReadonlySet<string> {
  const read = new Set([...body.nodes.flatMap(readsOf), ...body.outputs.map(({ name }) => name)]);
  for (const { name } of body.inputs) read.delete(name);
  for (const name of body.initializers.keys()) read.delete(name);
  for (const name of body.nodes.flatMap(({ outputs }) => outputs)) read.delete(name);
  return read;
}

/** Every initializer of a graph and of the bodies in it. */
export function listInitializers(graph: Graph): readonly Initializer[] {
  return listScopes(graph).flatMap((scope) => [...scope.graph.initializers.values()]);
}

/** The graph with its initializers, and those of all bodies, replaced by what `change` makes of them. */
export function mapInitializers<G extends Graph | Subgraph>(
  graph: G,
  change: (initializer: Initializer) => Initializer,
): G {
  const initializers = new Map([...graph.initializers].map(([name, each]) => [name, change(each)]));
  const nodes = graph.nodes.map((node) => mapBodies(node, (body) => mapInitializers(body, change)));
  return { ...graph, initializers, nodes };
}

/** The node with its bodies replaced. */
export function mapBodies(node: GraphNode, change: (body: Subgraph) => Subgraph): GraphNode {
  if (bodiesOf(node).length === 0) return node;
  const attributes: Record<string, Attribute> = {};
  for (const [name, attribute] of Object.entries(node.attributes)) {
    if (attribute.type === 'graph') attributes[name] = { ...attribute, value: change(attribute.value) };
    else if (attribute.type === 'graphs')
      attributes[name] = { ...attribute, value: attribute.value.map(change) };
    else attributes[name] = attribute;
  }
  return { ...node, attributes };
}
