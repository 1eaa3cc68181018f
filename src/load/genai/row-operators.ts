import { intAttribute } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { GraphNode } from '../../graph/ir.js';
import { emitAttention } from './attention.js';
import {
  addRows,
  declaredShape,
  findConstant,
  integersOf,
  isLastAxis,
  keepConstant,
  keepRow,
  numberOf,
  rowsOf,
  type Draft,
  type RowValue,
} from './draft.js';
import { attentionReads } from './heads.js';
import { emitBlockGather, emitBlockLinear, emitGather, emitLinear } from './linear.js';
import { refuseNode } from './problems.js';

/** How a node over [batch, sequence, columns] becomes one over [tokens, columns]. */
interface RowOperator {
  /** Values of the source that carry rows into the node. */
  readonly reads: (draft: Draft, node: GraphNode) => readonly string[];
  /** Appends what the node becomes. @throws UnsupportedError naming the node */
  readonly emit: (draft: Draft, node: GraphNode) => void;
}

const none = (): readonly string[] => [];
const first = (_: Draft, node: GraphNode): readonly string[] => node.inputs.slice(0, 1);
const computed = (draft: Draft, node: GraphNode): readonly string[] =>
  node.inputs.filter((name) => name !== '' && findConstant(draft, name) === undefined);

const linear: RowOperator = { reads: first, emit: emitLinear };
const unary: RowOperator = { reads: first, emit: emitUnary };
const binary: RowOperator = { reads: computed, emit: emitBinary };
const norm: RowOperator = { reads: first, emit: emitNorm };
const skipNorm: RowOperator = { reads: computed, emit: emitSkipNorm };
const layout: RowOperator = { reads: first, emit: emitLayout };

/** By operator; those of ONNX Runtime's own domain with `com.microsoft.` before the name. */
const OPERATORS: ReadonlyMap<string, RowOperator> = new Map([
  ['Gather', { reads: none, emit: emitGather }],
  ['com.microsoft.GatherBlockQuantized', { reads: none, emit: emitBlockGather }],
  ['MatMul', linear],
  ['Gemm', linear],
  ['com.microsoft.MatMulNBits', { reads: first, emit: emitBlockLinear }],
  ['com.microsoft.GroupQueryAttention', { reads: attentionReads, emit: emitAttention }],
  ['SimplifiedLayerNormalization', norm],
  ['RMSNormalization', norm],
  ['LayerNormalization', norm],
  ['com.microsoft.SkipSimplifiedLayerNormalization', skipNorm],
  ['com.microsoft.SkipLayerNormalization', skipNorm],
  ['Split', { reads: first, emit: emitSplit }],
  ['Reshape', layout],
  ['Identity', layout],
  ['Cast', { reads: first, emit: emitCast }],
  ...['Sigmoid', 'Tanh', 'Relu', 'Gelu', 'Erf', 'Neg', 'Exp', 'Sqrt', 'Softplus'].map(
    (op) => [op, unary] as const,
  ),
  ...['Gelu', 'FastGelu', 'QuickGelu'].map((op) => [`com.microsoft.${op}`, unary] as const),
  ...['Add', 'Sub', 'Mul', 'Div', 'Pow'].map((op) => [op, binary] as const),
]);

/** The operator of a node; undefined for one that fdq does not know. */
export function findOperator({ domain, opType }: GraphNode): RowOperator | undefined {
  return OPERATORS.get(domain === '' ? opType : `${domain}.${opType}`);
}

function emitUnary(draft: Draft, node: GraphNode): void {
  const [input = '', ...rest] = node.inputs;
  const x = rowsOf(draft, node, input);
  const others = rest.map((name) => (name === '' ? '' : keepRow(draft, node, name, x.columns)));
  addRows(draft, { ...node, inputs: [x.name, ...others] }, x);
}

/** Two values of equal size, or one and a constant row or number. */
function emitBinary(draft: Draft, node: GraphNode): void {
  const rows = computed(draft, node).map((name) => rowsOf(draft, node, name));
  const [x, y = x] = rows;
  if (x === undefined || x.columns !== y?.columns || x.rows !== y.rows) {
    throw refuseNode(node, 'combines values of different sizes');
  }
  const inputs = node.inputs.map(
    (name) => draft.rows.get(name)?.name ?? keepRow(draft, node, name, x.columns),
  );
  addRows(draft, { ...node, inputs }, x);
}

function emitNorm(draft: Draft, node: GraphNode): void {
  const [input = '', ...weights] = node.inputs;
  const x = rowsOf(draft, node, input);
  if (!isLastAxis(draft, input, numberOf(node, 'axis', -1)))
    throw refuseNode(node, 'normalizes more than the last axis');
  const inputs = [x.name, ...weights.map((name) => keepVector(draft, node, name, x.columns))];
  const attributes = { ...node.attributes, axis: intAttribute(-1) };
  addRows(draft, { ...node, inputs, outputs: node.outputs.slice(0, 1), attributes }, x);
}

/** Outputs are the norm, two that training needs, and the sum that was normalized. */
function emitSkipNorm(draft: Draft, node: GraphNode): void {
  const [input = '', skip = '', ...weights] = node.inputs;
  const [x, y] = [rowsOf(draft, node, input), rowsOf(draft, node, skip)];
  if (x.columns !== y.columns || x.rows !== y.rows) throw refuseNode(node, 'adds values of different sizes');
  const [output = '', , , sum = ''] = node.outputs;
  if (output === '') throw refuseNode(node, 'adds without a use of its norm');
  addRows(
    draft,
    {
      ...node,
      inputs: [x.name, y.name, ...weights.map((name) => keepVector(draft, node, name, x.columns))],
      outputs: sum === '' ? [output] : [output, '', '', sum],
    },
    x,
  );
  if (sum === '') return;
  draft.rows.set(sum, { ...x, name: sum });
  draft.values.set(sum, { name: sum, dataType: x.dataType, shape: [x.rows, x.columns] });
}

/** A norm over heads outside of an attention has a weight of another size than the rows. */
function keepVector(draft: Draft, node: GraphNode, name: string, columns: number): string {
  if (name === '') return '';
  const shape = findConstant(draft, name)?.shape;
  if (shape !== undefined && shape.join() !== String(columns)) {
    throw refuseNode(
      node,
      `normalizes parts of rows: its weight is [${shape.join(', ')}], rows have ${columns}`,
    );
  }
  return keepRow(draft, node, name, columns);
}

function emitSplit(draft: Draft, node: GraphNode): void {
  const [input = '', lengths = ''] = node.inputs;
  const x = rowsOf(draft, node, input);
  if (!isLastAxis(draft, input, numberOf(node, 'axis', 0)))
    throw refuseNode(node, 'cuts another axis than the last');
  const count = node.outputs.length;
  const sizes =
    lengths === '' ? node.outputs.map(() => x.columns / count) : integersOf(findConstant(draft, lengths));
  const total = sizes?.reduce((sum, size) => sum + size, 0);
  if (
    sizes?.length !== count ||
    total !== x.columns ||
    !sizes.every((size) => Number.isInteger(size) && size > 0)
  ) {
    throw refuseNode(node, `cuts ${x.columns} columns into parts of unknown sizes`);
  }
  const inputs = lengths === '' ? [x.name] : [x.name, keepConstant(draft, node, lengths)];
  draft.nodes.push({ ...node, inputs, attributes: { ...node.attributes, axis: intAttribute(1) } });
  for (const [index, name] of node.outputs.entries()) {
    const part: RowValue = { ...x, name, columns: sizes[index] as number };
    draft.rows.set(name, part);
    draft.values.set(name, { name, dataType: part.dataType, shape: [part.rows, part.columns] });
  }
}

/** A Reshape between [batch, sequence, columns] and [tokens, columns] does nothing to packed rows. */
function emitLayout(draft: Draft, node: GraphNode): void {
  const [input = '', target = ''] = node.inputs;
  const output = node.outputs[0] as string;
  const x = rowsOf(draft, node, input);
  const sizes = integersOf(findConstant(draft, target)) ?? declaredShape(draft, output);
  const last = sizes?.at(-1);
  const isSame =
    last === x.columns || (last === -1 && sizes?.slice(0, -1).every((size) => size === 0) === true);
  if (node.opType === 'Reshape' && !isSame) {
    throw refuseNode(node, `makes rows of ${last ?? 'unknown size'} out of rows of ${x.columns}`);
  }
  draft.rows.set(output, x);
}

/** Only the widening of an embedding's rows; computing in another type than float32 is refused where it happens. */
function emitCast(draft: Draft, node: GraphNode): void {
  const x = draft.rows.get(node.inputs[0] as string);
  if (x === undefined || numberOf(node, 'to', 0) !== elementTypeOf('float32')) {
    throw refuseNode(node, 'converts to another type than float32');
  }
  if (x.dataType === 'float32') draft.rows.set(node.outputs[0] as string, x);
  else addRows(draft, { ...node, inputs: [x.name] }, { ...x, dataType: 'float32' });
}
