import { floatAttribute, intAttribute, stringAttribute } from '../../graph/builder.js';
import type { GraphNode } from '../../graph/ir.js';
import { FDQ_DOMAIN } from '../../models/blocks/context.js';
import { addRows, findConstant, keepConstant, numberOf, renameNode, rowsOf, type Draft } from './draft.js';
import {
  findRotation,
  joinHeads,
  pairsOf,
  traceHeads,
  type HeadPath,
  type HeadPaths,
  type Rotation,
} from './heads.js';
import { refuseNode } from './problems.js';

/** Attributes of GroupQueryAttention that change its result in ways PagedAttention has not, and when they do not. */
const NEUTRAL: ReadonlyMap<string, readonly (number | string)[]> = new Map([
  ['softcap', [0]],
  ['smooth_softmax', [0, -1]],
  ['qk_output', [0]],
  ['k_quant_type', ['NONE']],
  ['v_quant_type', ['NONE']],
  ['kv_cache_bit_width', [0]],
]);
const READ = new Set([
  'num_heads',
  'kv_num_heads',
  'scale',
  'do_rotary',
  'rotary_interleaved',
  'local_window_size',
]);
/** Indices of inputs of GroupQueryAttention. */
const PAST_KEY = 3;
const LENGTHS = [5, 6] as const;
const FIRST_REFUSED = 10;

/**
 * GroupQueryAttention over `past` and `present` → PagedAttention over the pool of the engine.
 *
 *   q ─ Reshape ─ norm ─ Reshape ─ RotaryEmbedding ─┐
 *   k ─ Reshape ─ norm ─ Reshape ─ RotaryEmbedding ─┼─ GroupQueryAttention     norms and rotations optional
 *   v ──────────────────────────────────────────────┘
 * @throws UnsupportedError naming the node and what PagedAttention does not compute
 */
export function emitAttention(draft: Draft, node: GraphNode): void {
  requireKnown(draft, node);
  const { numHeads, headDim } = draft.config;
  const paths = traceHeads(draft, node);
  const rotation = findRotation(draft, node, paths);
  const inputs = [
    addQkv(draft, node, joinHeads(draft, paths)),
    addRotary(draft, node, rotation),
    'query_starts',
    'context_lengths',
    'block_tables',
    addNorm(draft, node, paths.query),
    addNorm(draft, node, paths.key),
  ];
  addRows(
    draft,
    {
      name: renameNode(node, 'PagedAttention'),
      domain: FDQ_DOMAIN,
      opType: 'PagedAttention',
      inputs,
      outputs: [node.outputs[0] as string],
      attributes: attributesOf(draft, node, { paths, rotation }),
    },
    { dataType: 'float32', rows: 'tokens', columns: numHeads * headDim },
  );
}

function attributesOf(
  draft: Draft,
  node: GraphNode,
  { paths, rotation }: { readonly paths: HeadPaths; readonly rotation: Rotation },
): GraphNode['attributes'] {
  const { numHeads, numKvHeads, headDim } = draft.config;
  const normed = [paths.query, paths.key].filter((path) => path !== undefined && path.norm !== '');
  const epsilons = new Set(normed.map((path) => path?.epsilon));
  if (epsilons.size > 1) throw refuseNode(node, 'has norms of q and k with different epsilons');
  const layer = draft.nodes.filter(({ opType }) => opType === 'PagedAttention').length;
  const scale = numberOf(node, 'scale', 0);
  return {
    layer: intAttribute(layer),
    num_heads: intAttribute(numHeads),
    num_kv_heads: intAttribute(numKvHeads),
    head_dim: intAttribute(headDim),
    scale: floatAttribute(scale === 0 ? headDim ** -0.5 : scale),
    // Both count the position itself; none is -1 there and 0 here.
    window: intAttribute(Math.max(numberOf(node, 'local_window_size', -1), 0)),
    rotary_dim: intAttribute(2 * pairsOf(draft, node, rotation)),
    rotary_interleaved: intAttribute(rotation.interleaved ? 1 : 0),
    norm_epsilon: floatAttribute([...epsilons][0] ?? 0),
    compute: stringAttribute('float32'),
  };
}

function requireKnown(draft: Draft, node: GraphNode): void {
  const { numHeads, numKvHeads, attentionMask, inputIds, positionIds } = draft.config;
  for (const [name, attribute] of Object.entries(node.attributes)) {
    const neutral = NEUTRAL.get(name);
    if (READ.has(name) || neutral?.includes(attribute.value as number | string) === true) continue;
    throw refuseNode(node, `has the attribute ${name} ${JSON.stringify(attribute.value)}`);
  }
  const heads = [numberOf(node, 'num_heads', 0), numberOf(node, 'kv_num_heads', 0)];
  if (heads[0] !== numHeads || heads[1] !== numKvHeads) {
    throw refuseNode(
      node,
      `has ${heads.join(' and ')} heads where genai_config.json says ${numHeads} and ${numKvHeads}`,
    );
  }
  const extra = node.inputs.slice(FIRST_REFUSED).find((input) => input !== '');
  if (extra !== undefined) throw refuseNode(node, `reads "${extra}", a bias, a sink or a scale of its cache`);
  for (const past of node.inputs.slice(PAST_KEY, PAST_KEY + 2)) {
    if (!draft.source.inputs.some(({ name }) => name === past)) {
      throw refuseNode(node, `reads the cache "${past}", which is not an input of the model`);
    }
  }
  const known = new Set([attentionMask, inputIds, positionIds]);
  for (const index of LENGTHS) {
    const other = findOrigins(draft, node.inputs[index] ?? '').find((input) => !known.has(input));
    if (other !== undefined)
      throw refuseNode(node, `takes lengths from "${other}", not from ${attentionMask}`);
  }
}

/** Inputs of the model that a value is computed from. */
function findOrigins({ producers, source }: Draft, value: string): readonly string[] {
  const seen = new Set<string>();
  const queue = [value];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    queue.push(...(producers.get(name)?.inputs ?? []));
  }
  return source.inputs.map(({ name }) => name).filter((name) => seen.has(name));
}

/** Rows of both caches at the positions of the step, [tokens, cos | sin]; once for all layers that share them. */
function addRotary(draft: Draft, node: GraphNode, rotation: Rotation): string {
  const { cos, sin } = rotation;
  const key = `${cos}\n${sin}`;
  const known = draft.rotaries.get(key);
  if (known !== undefined) return known;
  const pairs = pairsOf(draft, node, rotation);
  const base = `/model/rotary${draft.rotaries.size === 0 ? '' : `_${draft.rotaries.size}`}`;
  const rows = { dataType: 'float32', rows: 'tokens' } as const;
  const parts = [cos, sin].map((cache, index) => {
    const name = `${base}/${index === 0 ? 'cos' : 'sin'}`;
    const inputs = [keepConstant(draft, node, cache), 'positions'];
    const attributes = { axis: intAttribute(0) };
    addRows(
      draft,
      { name: `${name}/Gather`, domain: '', opType: 'Gather', inputs, outputs: [name], attributes },
      { ...rows, columns: pairs },
    );
    return name;
  });
  addRows(draft, concat(base, parts), { ...rows, columns: 2 * pairs });
  draft.rotaries.set(key, base);
  return base;
}

/** q, k and v side by side, [tokens, (heads + 2 kv heads) * head]. */
function addQkv(draft: Draft, node: GraphNode, bases: readonly string[]): string {
  const { numHeads, numKvHeads, headDim } = draft.config;
  const parts = bases.map((base) => rowsOf(draft, node, base));
  const wanted = [numHeads, numKvHeads, numKvHeads].map((heads) => heads * headDim);
  const columns = wanted.reduce((sum, size) => sum + size);
  const found = parts.map((part) => part.columns).join(', ');
  if (found !== (parts.length === 1 ? String(columns) : wanted.join(', '))) {
    throw refuseNode(node, `reads ${found} columns of q, k and v, not ${wanted.join(', ')}`);
  }
  const [only, ...others] = parts;
  if (only !== undefined && others.length === 0) return only.name;
  const name = `${node.name}/qkv`;
  const joined = concat(
    name,
    parts.map((part) => part.name),
  );
  addRows(draft, joined, { dataType: 'float32', rows: 'tokens', columns });
  return name;
}

function concat(name: string, inputs: readonly string[]): GraphNode {
  return {
    name: `${name}/Concat`,
    domain: '',
    opType: 'Concat',
    inputs,
    outputs: [name],
    attributes: { axis: intAttribute(1) },
  };
}

function addNorm(draft: Draft, node: GraphNode, path: HeadPath | undefined): string {
  if (path === undefined || path.norm === '') return '';
  const type = findConstant(draft, path.norm)?.dataType ?? 'no type';
  if (type !== 'float32') throw refuseNode(node, `has a norm in ${type}, not in float32`);
  return keepConstant(draft, node, path.norm);
}
