import { BugError } from '../errors.js';
import { findGraphProblem } from './validate.js';

import type { Graph, GraphNode, Initializer, ValueInfo } from './ir.js';

/** What one node becomes. The new nodes take the old one's place and must define every value of it still read. */
export interface NodeReplacement {
  readonly nodes: readonly GraphNode[];
  readonly initializers?: readonly Initializer[];
  readonly values?: readonly ValueInfo[];
}

export interface RewriteOptions {
  /** Domains the new nodes use and the graph does not name yet: domain → version. */
  readonly opsets?: ReadonlyMap<string, number>;
  readonly metadata?: ReadonlyMap<string, string>;
}

/**
 * A copy of `graph` in which nodes, chosen by name, are replaced. Initializers and value shapes that nothing
 * refers to any more are dropped. A new initializer may take the name of one that only replaced nodes read.
 * @throws BugError when a name is not a node's or the result is not a valid graph.
 */
export function replaceNodes(
  graph: Graph,
  replacements: ReadonlyMap<string, NodeReplacement>,
  options: RewriteOptions = {},
): Graph {
  const names = new Set(graph.nodes.map((node) => node.name));
  for (const name of replacements.keys()) {
    if (!names.has(name)) throw new BugError(`Node "${name}" is to be replaced but is not in the graph`);
  }
  const initializers = new Map(graph.initializers);
  const values = new Map(graph.values);
  const kept = new Set(
    graph.nodes.filter((node) => !replacements.has(node.name)).flatMap((node) => node.inputs),
  );
  for (const replacement of replacements.values()) {
    for (const initializer of replacement.initializers ?? []) {
      if (kept.has(initializer.name)) {
        throw new BugError(
          `Initializer "${initializer.name}" is to be replaced but other nodes still read it`,
        );
      }
      initializers.set(initializer.name, initializer);
    }
    for (const value of replacement.values ?? []) values.set(value.name, value);
  }
  const rewritten = dropUnused({
    ...graph,
    opsets: new Map([...(options.opsets ?? []), ...graph.opsets]),
    nodes: graph.nodes.flatMap((node) => replacements.get(node.name)?.nodes ?? [node]),
    initializers,
    values,
    metadata: new Map([...graph.metadata, ...(options.metadata ?? [])]),
  });
  const problem = findGraphProblem(rewritten);
  if (problem !== undefined) throw new BugError(`Rewriting graph "${graph.name}" broke it: ${problem}`);
  return rewritten;
}

/** A copy of `graph` without the initializers that nothing reads and the shapes of values that do not exist. */
export function dropUnused(graph: Graph): Graph {
  const read = new Set(graph.outputs.map((output) => output.name));
  const produced = new Set<string>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) read.add(input);
    for (const output of node.outputs) produced.add(output);
  }
  return {
    ...graph,
    initializers: new Map([...graph.initializers].filter(([name]) => read.has(name))),
    values: new Map([...graph.values].filter(([name]) => produced.has(name))),
  };
}

/** Nodes that read each value, in graph order; a node that reads a value twice is listed once. */
export function findConsumers(graph: Graph): ReadonlyMap<string, readonly GraphNode[]> {
  const consumers = new Map<string, GraphNode[]>();
  for (const node of graph.nodes) {
    for (const input of new Set(node.inputs)) {
      if (input === '') continue;
      const nodes = consumers.get(input);
      if (nodes === undefined) consumers.set(input, [node]);
      else nodes.push(node);
    }
  }
  return consumers;
}
