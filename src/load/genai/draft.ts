import type {
  Attribute,
  DataType,
  Dimension,
  Graph,
  GraphNode,
  Initializer,
  ValueInfo,
} from '../../graph/ir.js';
import type { LayerReport } from '../../quant/report.js';
import type { GenaiConfig } from './genai-config.js';
import { refuseNode } from './problems.js';

/** A value of the packed graph, one row a token: [tokens, columns], or [rows, columns] once rows are picked. */
export interface RowValue {
  /** In the packed graph. */
  readonly name: string;
  readonly dataType: DataType;
  readonly rows: 'tokens' | 'rows';
  readonly columns: number;
}

/** The packed graph while it is made of a graph over [batch, sequence, columns]. */
export interface Draft {
  readonly source: Graph;
  readonly config: GenaiConfig;
  /** Node of `source` by the values it makes. */
  readonly producers: ReadonlyMap<string, GraphNode>;
  /** The node of `source` that makes logits of hidden rows; only wanted rows go into it. */
  readonly head: GraphNode;
  readonly nodes: GraphNode[];
  readonly initializers: Map<string, Initializer>;
  readonly values: Map<string, ValueInfo>;
  /** Values of `source` → what they are now. */
  readonly rows: Map<string, RowValue>;
  /** Initializers of `source` → the weight made of them. */
  readonly weights: Map<string, string>;
  /** Gathered cosines and sines by the caches they come from. */
  readonly rotaries: Map<string, string>;
  /** Layers that are quantized already. */
  readonly stored: LayerReport[];
}

/** Appends a node with one output, which keeps its name. */
export function addRows(draft: Draft, node: GraphNode, output: Omit<RowValue, 'name'>): void {
  const name = node.outputs[0] as string;
  draft.nodes.push(node);
  draft.rows.set(name, { ...output, name });
  draft.values.set(name, { name, dataType: output.dataType, shape: [output.rows, output.columns] });
}

/**
 * The rows a node reads.
 * @throws UnsupportedError when the value is something else than a float32 value of each token
 */
export function rowsOf(draft: Draft, node: GraphNode, input: string): RowValue {
  const value = draft.rows.get(input);
  if (value === undefined) throw refuseNode(node, `reads "${input}", which is not computed for each token`);
  if (value.dataType !== 'float32') throw refuseNode(node, `computes in ${value.dataType}, not in float32`);
  return value;
}

/** A constant a node reads; undefined for a computed value. */
export function findConstant({ source }: Draft, name: string): Initializer | undefined {
  return source.initializers.get(name);
}

/** Takes a constant over into the packed graph under its own name. */
export function keepConstant(draft: Draft, node: GraphNode, name: string): string {
  const constant = findConstant(draft, name);
  if (constant === undefined) throw refuseNode(node, `needs "${name}" to be a constant`);
  draft.initializers.set(name, constant);
  return name;
}

/**
 * A constant of one row, or of one value.
 * @throws UnsupportedError for any other
 */
export function keepRow(draft: Draft, node: GraphNode, name: string, columns: number): string {
  const constant = findConstant(draft, name);
  if (constant === undefined) throw refuseNode(node, `needs "${name}" to be a constant`);
  const { shape, dataType } = constant;
  const fits = shape.length === 0 || (shape.length === 1 && (shape[0] === columns || shape[0] === 1));
  if (!fits || dataType !== 'float32') {
    throw refuseNode(
      node,
      `reads the constant "${name}", ${dataType} [${shape.join(', ')}], where float32 [${columns}] was expected`,
    );
  }
  return keepConstant(draft, node, name);
}

/** Values of an inline int64 or int32 constant; undefined for anything else. */
export function integersOf(constant: Initializer | undefined): readonly number[] | undefined {
  if (constant?.data.kind !== 'inline') return undefined;
  const { bytes } = constant.data;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (constant.dataType === 'int64') {
    return Array.from({ length: bytes.byteLength / 8 }, (_, i) => Number(view.getBigInt64(8 * i, true)));
  }
  if (constant.dataType !== 'int32') return undefined;
  return Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
}

/** The shape the model declares for a value, where it does. */
export function declaredShape({ source }: Draft, name: string): readonly Dimension[] | undefined {
  return (source.values.get(name) ?? source.outputs.find((output) => output.name === name))?.shape;
}

/** Whether an axis is the last of a value of `source`; values without a declared shape have three dimensions. */
export function isLastAxis(draft: Draft, value: string, axis: number): boolean {
  const rank = declaredShape(draft, value)?.length ?? 3;
  return axis === -1 || axis === rank - 1;
}

/** RMSNorm over the last axis. */
export function isRmsNorm(draft: Draft, node: GraphNode): boolean {
  const isNorm = node.opType === 'SimplifiedLayerNormalization' || node.opType === 'RMSNormalization';
  return (
    isNorm && node.domain === '' && isLastAxis(draft, node.inputs[0] as string, numberOf(node, 'axis', -1))
  );
}

/** Operators that only change how a value is laid out over batch and sequence, or its integer type. */
const LAYOUT = new Set(['Reshape', 'Cast', 'Identity', 'Squeeze', 'Unsqueeze', 'Flatten']);

/** Whether a value is an input of `source`, as it is or in another layout. */
export function isInput({ source, producers }: Draft, value: string, input: string): boolean {
  let name = value;
  for (let node = producers.get(name); node !== undefined; node = producers.get(name)) {
    if (node.domain !== '' || !LAYOUT.has(node.opType)) return false;
    name = node.inputs[0] as string;
  }
  return name === input && source.inputs.some((other) => other.name === name);
}

/** The name of a node whose operator becomes another: `/lm_head/MatMul` → `/lm_head/Gemm`. */
export function renameNode({ name, opType }: GraphNode, to: string): string {
  const start = name.lastIndexOf('/') + 1;
  const last = name.slice(start);
  return last.startsWith(opType)
    ? `${name.slice(0, start)}${to}${last.slice(opType.length)}`
    : `${name}/${to}`;
}

/** An int or float attribute, or `absent` for none. */
export function numberOf({ attributes }: GraphNode, name: string, absent: number): number {
  const attribute: Attribute | undefined = attributes[name];
  return attribute?.type === 'int' || attribute?.type === 'float' ? attribute.value : absent;
}
