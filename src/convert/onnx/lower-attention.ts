import { floatAttribute, intAttribute } from '../../graph/builder.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { GraphNode } from '../../graph/ir.js';
import { addTensor, mapped, numberOf, refuse, scopeOf, type Lowering } from './lowering.js';

interface AttentionShape {
  readonly layer: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly rotaryDim: number;
  readonly epsilon: number;
}

/**
 * A PagedAttention as GroupQueryAttention over `past_key_values` and `present`, with RMSNorm over the heads of
 * q and k before it where the model has them.
 * @returns the value [tokens, heads * head]
 */
export function lowerAttention(lowering: Lowering, node: GraphNode): string {
  const scope = scopeOf(lowering, node);
  const shape = readShape(node);
  const { layer, heads, kvHeads, headDim } = shape;
  const [qkv = '', rotary = '', , , , qNorm = '', kNorm = ''] = node.inputs;
  const [q, k, v] = splitHeads(lowering, scope, mapped(lowering, qkv), shape);
  const query = normHeads(lowering, scope, q, { weight: qNorm, heads, shape });
  const key = normHeads(lowering, scope, k, { weight: kNorm, heads: kvHeads, shape });
  const cache = { dataType: 'float32', shape: ['batch', kvHeads, 'total_sequence', headDim] } as const;
  const window = numberOf(node, 'window');
  const [attended = ''] = scope.node({
    opType: 'GroupQueryAttention',
    domain: 'com.microsoft',
    inputs: [
      toBatch(lowering, scope, query, heads * headDim),
      toBatch(lowering, scope, key, kvHeads * headDim),
      toBatch(lowering, scope, v, kvHeads * headDim),
      `past_key_values.${layer}.key`,
      `past_key_values.${layer}.value`,
      lowering.lastPositions,
      lowering.totalLength,
      ...addRotaryTables(lowering, rotary),
    ],
    outputs: [
      { dataType: 'float32', shape: ['batch', 'sequence', heads * headDim] },
      { ...cache, name: `present.${layer}.key` },
      { ...cache, name: `present.${layer}.value` },
    ],
    attributes: {
      num_heads: intAttribute(heads),
      kv_num_heads: intAttribute(kvHeads),
      scale: floatAttribute(numberOf(node, 'scale')),
      do_rotary: intAttribute(shape.rotaryDim > 0 ? 1 : 0),
      rotary_interleaved: intAttribute(numberOf(node, 'rotary_interleaved')),
      local_window_size: intAttribute(window === 0 ? -1 : window),
    },
  });
  return reshape(scope, attended, [-1, heads * headDim], ['tokens', heads * headDim]);
}

function readShape(node: GraphNode): AttentionShape {
  return {
    layer: numberOf(node, 'layer'),
    heads: numberOf(node, 'num_heads'),
    kvHeads: numberOf(node, 'num_kv_heads'),
    headDim: numberOf(node, 'head_dim'),
    rotaryDim: numberOf(node, 'rotary_dim'),
    epsilon: numberOf(node, 'norm_epsilon'),
  };
}

/** q [tokens, heads * head], k and v [tokens, kv heads * head]. */
function splitHeads(
  lowering: Lowering,
  scope: GraphBuilder,
  qkv: string,
  { heads, kvHeads, headDim }: AttentionShape,
): readonly [string, string, string] {
  const sizes = [heads, kvHeads, kvHeads].map((count) => count * headDim);
  const lengths = scope.constant('heads', 'int64', [3], BigInt64Array.from(sizes, BigInt));
  const [q = '', k = '', v = ''] = scope.node({
    opType: 'Split',
    inputs: [qkv, lengths],
    outputs: sizes.map((size) => ({ dataType: 'float32', shape: ['tokens', size] })),
    attributes: { axis: intAttribute(1) },
  });
  return [q, k, v];
}

/** RMSNorm over each head; the value itself where the model has no such norm. */
function normHeads(
  lowering: Lowering,
  scope: GraphBuilder,
  value: string,
  norm: { readonly weight: string; readonly heads: number; readonly shape: AttentionShape },
): string {
  if (norm.weight === '') return value;
  const { headDim, epsilon } = norm.shape;
  const rows = reshape(scope, value, [-1, norm.heads, headDim], ['tokens', norm.heads, headDim]);
  const normed = scope.value({
    opType: 'SimplifiedLayerNormalization',
    inputs: [rows, mapped(lowering, norm.weight)],
    output: { dataType: 'float32', shape: ['tokens', norm.heads, headDim] },
    attributes: { axis: intAttribute(-1), epsilon: floatAttribute(epsilon), stash_type: intAttribute(1) },
  });
  return reshape(scope, normed, [-1, norm.heads * headDim], ['tokens', norm.heads * headDim]);
}

function toBatch({ batchShape }: Lowering, scope: GraphBuilder, value: string, width: number): string {
  return scope.value({
    opType: 'Reshape',
    inputs: [value, batchShape],
    output: { dataType: 'float32', shape: ['batch', 'sequence', width] },
  });
}

function reshape(
  scope: GraphBuilder,
  value: string,
  sizes: readonly number[],
  shape: readonly (number | string)[],
): string {
  const name = `shape_${sizes.join('x').replace('-1', 'n')}`;
  const target = scope.constantOnce(name, 'int64', [sizes.length], BigInt64Array.from(sizes, BigInt));
  return scope.value({ opType: 'Reshape', inputs: [value, target], output: { dataType: 'float32', shape } });
}

/** Cosines and sines [positions, rotary / 2] of a RotaryTable, one pair for all layers. */
function addRotaryTables(lowering: Lowering, rotary: string): readonly string[] {
  const table = lowering.source.nodes.find(({ outputs }) => outputs[0] === rotary);
  if (table === undefined) return [];
  if (numberOf(table, 'ntk_original') > 0) {
    throw refuse('dynamic NTK scaling of rotary embeddings', 'Write --format fdq.');
  }
  const frequencies = readFrequencies(lowering, table);
  const factor = numberOf(table, 'attention_factor');
  const positions = lowering.decoder.maxPositions;
  const shape = [positions, frequencies.length];
  const functions = { cos: (x: number) => Math.cos(x), sin: (x: number) => Math.sin(x) };
  return (['cos', 'sin'] as const).map((part) =>
    addTensor(lowering, {
      target: {
        name: `${part}_cache`,
        dataType: 'float32',
        shape,
        data: { kind: 'external', file: '', offset: 0, byteLength: 4 * positions * frequencies.length },
      },
      compute: () => tabulate(functions[part], { frequencies, factor, positions }),
    }),
  );
}

function tabulate(
  of: (radians: number) => number,
  table: {
    readonly frequencies: Float32Array;
    readonly factor: number;
    readonly positions: number;
  },
): Uint8Array {
  const { frequencies, factor, positions } = table;
  const values = new Float32Array(positions * frequencies.length);
  for (let position = 0; position < positions; position++) {
    for (const [pair, frequency] of frequencies.entries()) {
      // transformers rounds the angle to float32 before its cosine.
      values[position * frequencies.length + pair] = of(Math.fround(position * frequency)) * factor;
    }
  }
  return new Uint8Array(values.buffer);
}

function readFrequencies(lowering: Lowering, table: GraphNode): Float32Array {
  const data = lowering.source.initializers.get(table.inputs[1] as string)?.data;
  if (data?.kind !== 'inline') throw refuse('rotary frequencies that are no constant', 'Write --format fdq.');
  return new Float32Array(data.bytes.slice().buffer);
}
