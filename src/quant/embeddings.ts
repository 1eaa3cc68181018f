import type { Graph, GraphNode, Initializer } from '../graph/ir.js';
import { findWeightObstacle, numberAttribute, withoutWeightSuffix } from './linear-layers.js';
import type { LayerMember } from './linear-layers.js';

/** A Gather of rows of a lazy weight, with the Cast to float32 behind it. */
export interface EmbeddingTable {
  readonly node: GraphNode;
  /** int64 [t] */
  readonly ids: string;
  /** [n, k], of kind 'weight'. */
  readonly weight: Initializer;
  readonly members: readonly [LayerMember, ...LayerMember[]];
  readonly names: readonly string[];
  /** The node that widens the rows to float32; undefined where they are float32 already. */
  readonly cast: GraphNode | undefined;
  /** The float32 rows, [t, k]. */
  readonly output: string;
  /** Why the node cannot become a QuantGather and stays what it is. */
  readonly obstacle: string | undefined;
}

/** ONNX's number for float32, the `to` of a Cast. */
const FLOAT32 = 1;

/** Every Gather whose first operand is a lazy weight matrix. */
export function findEmbeddings(graph: Graph): readonly EmbeddingTable[] {
  return graph.nodes.flatMap((node) => {
    const table = describeTable(graph, node);
    return table === undefined ? [] : [table];
  });
}

function describeTable(graph: Graph, node: GraphNode): EmbeddingTable | undefined {
  if (node.domain !== '' || node.opType !== 'Gather') return undefined;
  const [weightName = '', ids = ''] = node.inputs;
  const weight = graph.initializers.get(weightName);
  if (weight?.data.kind !== 'weight') return undefined;
  const [first, ...rest] = weight.data.members.map((source) => ({
    name: withoutWeightSuffix(source.name),
    source,
  }));
  if (first === undefined) return undefined;
  const rows = node.outputs[0] as string;
  const readers = graph.nodes.filter(({ inputs }) => inputs.includes(rows));
  const isWidened = weight.dataType !== 'float32';
  const cast = isWidened ? readers.find(isCastToFloat32) : undefined;
  return {
    node,
    ids,
    weight,
    members: [first, ...rest],
    names: [withoutWeightSuffix(weightName)],
    cast,
    output: cast?.outputs[0] ?? rows,
    obstacle:
      findWeightObstacle(weight, true) ??
      (rest.length > 0 ? `its weight is ${rest.length + 1} tensors` : undefined) ??
      findIdsObstacle(graph, node, ids) ??
      (isWidened && (cast === undefined || readers.length > 1 || isOutput(graph, rows))
        ? 'its rows are read as they are stored'
        : undefined),
  };
}

function findIdsObstacle(graph: Graph, node: GraphNode, ids: string): string | undefined {
  const axis = numberAttribute(node, 'axis', 0);
  if (axis !== 0) return `its Gather has axis ${axis}`;
  const info = graph.values.get(ids) ?? graph.inputs.find(({ name }) => name === ids);
  if (info === undefined) return 'the shape of its ids is not known';
  if (info.dataType !== 'int64') return `its ids are ${info.dataType}, not int64`;
  return info.shape.length === 1 ? undefined : `its ids have ${info.shape.length} dimensions, not [tokens]`;
}

function isCastToFloat32(node: GraphNode): boolean {
  return node.domain === '' && node.opType === 'Cast' && numberAttribute(node, 'to', 0) === FLOAT32;
}

function isOutput(graph: Graph, name: string): boolean {
  return graph.outputs.some((output) => output.name === name);
}
