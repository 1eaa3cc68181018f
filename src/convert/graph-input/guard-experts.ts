import type { Graph, GraphNode, Initializer, Subgraph } from '../../graph/ir.js';
import { listScopes, mapBodies } from '../../graph/scopes.js';

/** Added behind names of values; ONNX names no value so. */
const SUFFIX = ':fdq_guard';

function isExperts({ domain, opType }: GraphNode): boolean {
  return domain === 'com.microsoft' && opType === 'MoE';
}

/** Whether the graph or a body has a MoE of floats. */
export function hasExperts(graph: Graph): boolean {
  return listScopes(graph).some((scope) => scope.graph.nodes.some(isExperts));
}

/**
 * The graph with the input of every MoE read once more behind it. ONNX Runtime's CPU kernel (seen in 1.30 and 1.31)
 * may be given the memory of its input for its output, and zeroes that before it has read the input: where MoE is the
 * last reader of a value that a node made, its result is wrong. QMoE is not concerned.
 */
export function guardExperts(graph: Graph): Graph {
  return { ...graph, ...guard(graph) };
}

function guard<G extends Graph | Subgraph>(graph: G): Pick<G, 'nodes' | 'initializers'> {
  const added: Initializer[] = [];
  const nodes = graph.nodes.flatMap((each) => {
    const node = mapBodies(each, (body) => ({ ...body, ...guard(body) }));
    if (!isExperts(node)) return [node];
    const [x = ''] = node.inputs;
    const [y = ''] = node.outputs;
    const always = `${y}${SUFFIX}/true`;
    added.push({
      name: always,
      dataType: 'bool',
      shape: [],
      data: { kind: 'inline', bytes: Uint8Array.of(1) },
    });
    return [
      { ...node, outputs: [`${y}${SUFFIX}`] },
      {
        name: `${node.name}${SUFFIX}`,
        domain: '',
        opType: 'Where',
        inputs: [always, `${y}${SUFFIX}`, x],
        outputs: [y],
        attributes: {},
      },
    ];
  });
  const initializers = new Map([...graph.initializers, ...added.map((each) => [each.name, each] as const)]);
  return { nodes, initializers };
}
