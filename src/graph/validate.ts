import { findByteLength } from './data-types.js';

import type { Graph, Initializer } from './ir.js';

/**
 * The first thing that makes a graph unusable, as one sentence: a value defined twice or used before it is
 * defined, a node name used twice, an initializer whose bytes disagree with its shape.
 */
export function findGraphProblem(graph: Graph): string | undefined {
  const defined = new Set<string>();
  for (const input of graph.inputs) {
    if (defined.has(input.name)) return `Input "${input.name}" is defined twice`;
    defined.add(input.name);
  }
  for (const [name, initializer] of graph.initializers) {
    if (defined.has(name)) return `Initializer "${name}" has the name of an input`;
    const problem =
      name === initializer.name ? findInitializerProblem(initializer) : 'is listed under another name';
    if (problem !== undefined) return `Initializer "${initializer.name}" ${problem}`;
    defined.add(name);
  }
  return findNodeProblem(graph, defined) ?? findOutputProblem(graph, defined);
}

function findNodeProblem(graph: Graph, defined: Set<string>): string | undefined {
  const nodeNames = new Set<string>();
  for (const node of graph.nodes) {
    if (nodeNames.has(node.name)) return `Node name "${node.name}" is used twice`;
    nodeNames.add(node.name);
    const missing = node.inputs.find((input) => input !== '' && !defined.has(input));
    if (missing !== undefined)
      return `Node "${node.name}" reads "${missing}", which nothing before it defines`;
    for (const output of node.outputs) {
      if (output === '') continue;
      if (defined.has(output)) return `Value "${output}" of node "${node.name}" is defined twice`;
      defined.add(output);
    }
    if (!graph.opsets.has(node.domain)) {
      return `Node "${node.name}" is of domain "${node.domain}", for which the graph names no version`;
    }
  }
  return undefined;
}

function findOutputProblem(graph: Graph, defined: ReadonlySet<string>): string | undefined {
  const names = new Set<string>();
  for (const { name } of graph.outputs) {
    if (names.has(name)) return `Output "${name}" is listed twice`;
    if (!defined.has(name)) return `Output "${name}" is not defined by any node`;
    names.add(name);
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
