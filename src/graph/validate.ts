import { findByteLength } from './data-types.js';
import { bodiesOf } from './scopes.js';

import type { Graph, Initializer, Subgraph } from './ir.js';

/** Names that nodes may read: those of a graph, and of the graphs around it. */
interface Names {
  readonly own: Set<string>;
  readonly outer: Names | undefined;
}

/**
 * The first thing that makes a graph unusable, as one sentence: a value defined twice or used before it is
 * defined, a node name used twice, an initializer whose bytes disagree with its shape; in bodies as well.
 */
export function findGraphProblem(graph: Graph): string | undefined {
  return findPartsProblem(graph, graph.opsets, undefined);
}

function findPartsProblem(
  graph: Graph | Subgraph,
  opsets: Graph['opsets'],
  outer: Names | undefined,
): string | undefined {
  const names: Names = { own: new Set(), outer };
  for (const input of graph.inputs) {
    if (names.own.has(input.name)) return `Input "${input.name}" is defined twice`;
    names.own.add(input.name);
  }
  for (const [name, initializer] of graph.initializers) {
    if (names.own.has(name)) return `Initializer "${name}" has the name of an input`;
    const problem =
      name === initializer.name ? findInitializerProblem(initializer) : 'is listed under another name';
    if (problem !== undefined) return `Initializer "${initializer.name}" ${problem}`;
    names.own.add(name);
  }
  return findNodeProblem(graph, opsets, names) ?? findOutputProblem(graph, names);
}

function findNodeProblem(graph: Graph | Subgraph, opsets: Graph['opsets'], names: Names): string | undefined {
  const nodeNames = new Set<string>();
  for (const node of graph.nodes) {
    if (nodeNames.has(node.name)) return `Node name "${node.name}" is used twice`;
    nodeNames.add(node.name);
    const missing = node.inputs.find((input) => input !== '' && !isDefined(names, input));
    if (missing !== undefined)
      return `Node "${node.name}" reads "${missing}", which nothing before it defines`;
    for (const body of bodiesOf(node)) {
      const problem = findPartsProblem(body, opsets, names);
      if (problem !== undefined) return `${problem}, in a body of node "${node.name}"`;
    }
    for (const output of node.outputs) {
      if (output === '') continue;
      if (names.own.has(output)) return `Value "${output}" of node "${node.name}" is defined twice`;
      names.own.add(output);
    }
    if (!opsets.has(node.domain)) {
      return `Node "${node.name}" is of domain "${node.domain}", for which the graph names no version`;
    }
  }
  return undefined;
}

function isDefined({ own, outer }: Names, name: string): boolean {
  return own.has(name) || (outer !== undefined && isDefined(outer, name));
}

function findOutputProblem(graph: Graph | Subgraph, names: Names): string | undefined {
  const listed = new Set<string>();
  for (const { name } of graph.outputs) {
    if (listed.has(name)) return `Output "${name}" is listed twice`;
    if (!isDefined(names, name)) return `Output "${name}" is not defined by any node`;
    listed.add(name);
  }
  return undefined;
}

function findInitializerProblem({ dataType, shape, data }: Initializer): string | undefined {
  const expected = findByteLength(dataType, shape);
  if (expected === undefined) return `has the impossible shape [${shape.join(', ')}]`;
  const found =
    data.kind === 'inline' ? data.bytes.byteLength : data.kind === 'external' ? data.byteLength : expected;
  return found === expected ? undefined : `needs ${expected} bytes but has ${found}`;
}
