import type { GraphNode } from '../../graph/ir.js';
import { MICROSOFT_DOMAIN } from '../../models/blocks/context.js';
import { findConstant, isInput, isRmsNorm, numberOf, type Draft } from './draft.js';
import { refuseNode } from './problems.js';

/** Indices of inputs of GroupQueryAttention. */
const COS = 7;
const POSITIONS = 9;
/** Of ONNX's norms. */
const DEFAULT_EPSILON = 1e-5;

export interface Rotation {
  /** Constants [positions, pairs]. */
  readonly cos: string;
  readonly sin: string;
  readonly interleaved: boolean;
}

/** What lies between a projection and the attention: RMSNorm over each head, then rotation. */
export interface HeadPath {
  readonly base: string;
  /** Constant [head]; '' for none. */
  readonly norm: string;
  readonly epsilon: number;
  readonly rotation: Rotation | undefined;
}

/** Paths of a GroupQueryAttention; the query's is that of all three where one value holds q, k and v. */
export interface HeadPaths {
  readonly query: HeadPath;
  readonly key: HeadPath | undefined;
  readonly value: HeadPath | undefined;
}

/** Values of the source that carry rows into a GroupQueryAttention. */
export function attentionReads(draft: Draft, node: GraphNode): readonly string[] {
  return joinHeads(draft, traceHeads(draft, node));
}

/** @throws UnsupportedError for norms and rotations that PagedAttention does not apply */
export function traceHeads(draft: Draft, node: GraphNode): HeadPaths {
  const [query, key, value] = node.inputs
    .slice(0, 3)
    .map((name) => (name === '' ? undefined : tracePath(draft, node, name)));
  if (query === undefined || (key === undefined) !== (value === undefined))
    throw refuseNode(node, 'lacks q, k or v');
  const plain = value ?? query;
  if (plain.norm !== '' || plain.rotation !== undefined)
    throw refuseNode(node, 'normalizes or rotates its values');
  return { query, key, value };
}

/** Walks from an input of the attention to the projection; a Reshape on the way only cuts rows into heads. */
function tracePath(draft: Draft, reader: GraphNode, value: string): HeadPath {
  let path: HeadPath = { base: value, norm: '', epsilon: 0, rotation: undefined };
  for (let node = draft.producers.get(value); node !== undefined; node = draft.producers.get(path.base)) {
    if (node.domain === MICROSOFT_DOMAIN && node.opType === 'RotaryEmbedding') {
      const isSecond = path.norm !== '' || path.rotation !== undefined;
      if (isSecond) throw refuseNode(reader, 'normalizes or rotates what is rotated already');
      path = { ...path, rotation: readRotation(draft, node) };
    } else if (isHeadNorm(draft, node)) {
      if (path.norm !== '') throw refuseNode(reader, 'normalizes a value twice');
      path = { ...path, norm: node.inputs[1] as string, epsilon: numberOf(node, 'epsilon', DEFAULT_EPSILON) };
    } else if (node.domain !== '' || node.opType !== 'Reshape') break;
    path = { ...path, base: node.inputs[0] as string };
  }
  return path;
}

function isHeadNorm(draft: Draft, node: GraphNode): boolean {
  const shape = findConstant(draft, node.inputs[1] ?? '')?.shape;
  return isRmsNorm(draft, node) && shape?.length === 1 && shape[0] === draft.config.headDim;
}

function readRotation(draft: Draft, node: GraphNode): Rotation {
  const [, positions = '', cos = '', sin = ''] = node.inputs;
  requirePositions(draft, node, positions);
  for (const [name, neutral] of [['scale', 1] as const, ['is_packed_batching', 0] as const]) {
    const value = numberOf(node, name, neutral);
    if (value !== neutral) throw refuseNode(node, `has ${name} ${value}`);
  }
  return { cos, sin, interleaved: numberOf(node, 'interleaved', 0) === 1 };
}

/**
 * How q and k are rotated, by the attention itself or before it.
 * @throws UnsupportedError when they are not, or differently
 */
export function findRotation(draft: Draft, node: GraphNode, { query, key }: HeadPaths): Rotation {
  const before = query.rotation ?? key?.rotation;
  if (numberOf(node, 'do_rotary', 0) === 1) {
    const [cos = '', sin = '', positions = ''] = node.inputs.slice(COS, POSITIONS + 1);
    if (before !== undefined) throw refuseNode(node, 'rotates what is rotated already');
    if (positions !== '') requirePositions(draft, node, positions);
    return { cos, sin, interleaved: numberOf(node, 'rotary_interleaved', 0) === 1 };
  }
  if (before === undefined) throw refuseNode(node, 'has no rotary embedding, which PagedAttention applies');
  const isSame = ([query.rotation, key?.rotation] as const).every(
    (rotation) =>
      rotation?.cos === before.cos &&
      rotation.sin === before.sin &&
      rotation.interleaved === before.interleaved,
  );
  if (!isSame) throw refuseNode(node, 'has a rotation of q that is not that of k');
  return before;
}

function requirePositions(draft: Draft, node: GraphNode, positions: string): void {
  const { positionIds } = draft.config;
  if (!isInput(draft, positions, positionIds)) {
    throw refuseNode(node, `rotates by "${positions}", not by ${positionIds}`);
  }
}

/** Half of the rotated entries of a head. */
export function pairsOf(draft: Draft, node: GraphNode, { cos, sin }: Rotation): number {
  const [cosines, sines] = [findConstant(draft, cos), findConstant(draft, sin)];
  const [, pairs = 0] = cosines?.shape ?? [];
  const areTables = [cosines, sines].every(
    (table) =>
      table?.dataType === 'float32' &&
      table.shape.length === 2 &&
      table.shape.join() === cosines?.shape.join(),
  );
  if (!areTables) {
    throw refuseNode(node, `rotates by "${cos}" and "${sin}", which are no float32 tables of equal shape`);
  }
  if (2 * pairs > draft.config.headDim)
    throw refuseNode(node, `rotates ${2 * pairs} entries of a smaller head`);
  return pairs;
}

/** The value that holds q, k and v side by side where a Split cut it, else the three. */
export function joinHeads({ producers }: Draft, { query, key, value }: HeadPaths): readonly string[] {
  const bases = [query, key, value].flatMap((path) => path?.base ?? []);
  const split = producers.get(query.base);
  const isWhole =
    split?.domain === '' && split.opType === 'Split' && split.outputs.join('\n') === bases.join('\n');
  return isWhole ? split.inputs.slice(0, 1) : bases;
}
