import { afterEach, describe, expect, it } from 'vitest';
import { byteLengthOf, elementTypeOf } from '../../src/graph/data-types.js';
import type { Attribute, Graph, GraphNode, Initializer, ValueInfo } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import { activationRuleOf } from '../../src/quant/activation.js';
import { packPanels } from '../../src/quant/packed-layout.js';
import { asQuantGather } from '../../src/quant/quant-gather.js';
import { SCHEMES } from '../../src/quant/registry.js';
import type { NativeFormat, QuantizedParts, QuantScheme } from '../../src/quant/scheme.js';
import type { NativeInitializer, NativeSession } from '../../src/runtime/addon.js';
import { createSession, openAddon } from '../helpers/addon.js';
import { makeMatrix } from '../helpers/native-weights.js';

const runtime = openAddon();
const { addon } = runtime;
const quantized = SCHEMES.filter(
  (scheme): scheme is QuantScheme & { native: NativeFormat } => scheme.native !== null,
);

const N = 37;
const K = 150;
const TOKENS = 3;

/** One QuantLinear of a scheme with its weight quantized, and what it computes from. */
function makeLayer(scheme: QuantScheme & { native: NativeFormat }): {
  readonly node: GraphNode;
  readonly initializers: readonly Initializer[];
  readonly packed: QuantizedParts;
  readonly dequantized: Float32Array;
} {
  const { tensor, bytes } = makeMatrix([N, K], (i) => Math.sin(i * 7.13) * 0.5);
  const parts = scheme.quantize(tensor, { firstRow: 0, bytes });
  const source = { ...tensor, file: '/absent', offset: 0, byteLength: bytes.length };
  const { node, initializers } = scheme.emit({
    node: 'layer',
    x: 'x',
    bias: '',
    output: 'y',
    weight: { ...tensor, name: 'w', data: { kind: 'weight', members: [source] } },
    members: [source],
    fused: [source],
    compute: 'float32',
  });
  return {
    node,
    initializers,
    packed: packPanels({ n: N, k: K, native: scheme.native }, parts),
    dequantized: scheme.dequantize(tensor, parts),
  };
}

function modelOf(
  node: GraphNode,
  initializers: readonly Initializer[],
  ...graphInputs: readonly [ValueInfo, ...ValueInfo[]]
): Uint8Array {
  const [x] = graphInputs;
  const graph: Graph = {
    name: 'test',
    opsets: new Map([
      ['', 21],
      ['fdq', 1],
    ]),
    inputs: graphInputs,
    outputs: [{ name: 'y', dataType: 'float32', shape: ['t', x.dataType === 'int64' ? K : N] }],
    nodes: [node],
    initializers: new Map(initializers.map((initializer) => [initializer.name, initializer])),
    values: new Map(),
    metadata: new Map(),
  };
  return serializeModel(graph);
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The parts in memory of the addon, in the order of the initializers. */
function placeParts(initializers: readonly Initializer[], packed: QuantizedParts): NativeInitializer[] {
  return initializers.map(({ name, dataType, shape, data }) => {
    const part = data.kind === 'quantized' ? data.part : 'weight';
    const source = {
      weight: packed.codes,
      scales: packed.scales,
      block_scales: packed.blockScales,
      zero_points: packed.zeroPoints,
    }[part];
    const bytes = bytesOf(source ?? new Uint8Array());
    expect(bytes.length).toBe(byteLengthOf(dataType, shape));
    const memory = addon.allocate(bytes.length);
    new Uint8Array(memory).set(bytes);
    const elementType = elementTypeOf(dataType);
    return { name, elementType, shape, memory, byteOffset: 0, byteLength: bytes.length };
  });
}

const X: ValueInfo = { name: 'x', dataType: 'float32', shape: ['t', K] };
const IDS: ValueInfo = { name: 'x', dataType: 'int64', shape: ['t'] };

describe('an op over a quantized weight', () => {
  const sessions: NativeSession[] = [];
  afterEach(async () => {
    await Promise.all(sessions.splice(0).map((session) => session.close()));
  });
  const open = async (model: Uint8Array, parts: readonly NativeInitializer[]): Promise<NativeSession> => {
    const session = await createSession(runtime, { model, initializers: parts });
    sessions.push(session);
    return session;
  };
  const run = async (
    session: NativeSession,
    data: Float32Array | BigInt64Array,
    columns: number,
  ): Promise<Float32Array> => {
    const isIds = data instanceof BigInt64Array;
    const shape = isIds ? [data.length] : [data.length / K, K];
    const y = new Float32Array((shape[0] as number) * columns);
    await session.run(
      [{ name: 'x', elementType: elementTypeOf(isIds ? 'int64' : 'float32'), shape, data }],
      [{ name: 'y', elementType: elementTypeOf('float32'), shape: [shape[0] as number, columns], data: y }],
    );
    return y;
  };

  it.each(quantized.map((scheme) => [scheme.name, scheme] as const))(
    'multiplies %s as the kernel does, and gathers its rows exactly',
    async (_name, scheme) => {
      const { node, initializers, packed, dequantized } = makeLayer(scheme);
      const x = Float32Array.from({ length: TOKENS * K }, (_, i) => Math.cos(i * 3.7));
      const linear = await open(modelOf(node, initializers, X), placeParts(initializers, packed));
      const expected = await addon.runLinear({
        ...scheme.native,
        memberRows: [N],
        k: K,
        weight: packed.codes,
        ...(packed.scales.length === 0 ? {} : { scales: packed.scales }),
        ...(packed.blockScales === undefined ? {} : { blockScales: packed.blockScales }),
        activation: activationRuleOf(scheme.activation),
        compute: 'float32',
        isa: addon.detectIsa(),
        threads: 1,
        x,
        tokens: TOKENS,
      });
      expect(await run(linear, x, N)).toEqual(expected);

      const gather = await open(
        modelOf(asQuantGather(node), initializers, IDS),
        placeParts(initializers, packed),
      );
      const rows = [N - 1, 0, 16, 15, 0];
      const y = await run(gather, BigInt64Array.from(rows, BigInt), K);
      for (const [i, row] of rows.entries()) {
        expect(y.slice(i * K, (i + 1) * K), `row ${row}`).toEqual(dequantized.slice(row * K, (row + 1) * K));
      }
    },
  );

  const nvfp4 = quantized.find(({ name }) => name === 'nvfp4') as QuantScheme & { native: NativeFormat };

  it.each([-1n, BigInt(N), 2n ** 62n])('refuses to gather row %s', async (id) => {
    const { node, initializers, packed } = makeLayer(nvfp4);
    const session = await open(
      modelOf(asQuantGather(node), initializers, IDS),
      placeParts(initializers, packed),
    );
    await expect(run(session, BigInt64Array.of(0n, id), K)).rejects.toThrow(
      `id ${id} is outside the ${N} rows`,
    );
  });

  const integer = (value: number): Attribute => ({ type: 'int', value });
  const text = (value: string): Attribute => ({ type: 'string', value });
  it.each<readonly [string, Readonly<Record<string, Attribute>>, string]>([
    ['another k', { k: integer(K + 200) }, 'size does not fit'],
    ['more rows', { rows: { type: 'ints', value: [N + 16] } }, 'size does not fit'],
    ['another block', { block_k: integer(32) }, "the block scales' size does not fit"],
    ['a block of 24', { block_k: integer(24) }, '16, 32 or 64 columns'],
    ['no blocks', { block_k: integer(0), block_type: text('') }, 'must have block scales'],
    ['another block type', { block_type: text('e8m0') }, 'element type of the block scales'],
    ['a format without blocks', { format: text('nf4') }, 'only e2m1 and int2 have block scales'],
    [
      'another format',
      { format: text('int8'), block_k: integer(0), block_type: text('') },
      'element type of the weight',
    ],
    ['an unknown format', { format: text('int3') }, 'unknown weight format int3'],
    ['no tensor scale', { group_n: integer(-1) }, "the scales' size does not fit"],
    ['an odd group', { group_n: integer(1), group_k: integer(40) }, 'group_n and group_k must be'],
    ['an unknown rule', { activation: text('int4_token') }, 'unknown activation rule int4_token'],
    ['a static rule without a scale', { activation: text('int8_static') }, 'finite activation scale above 0'],
  ])('refuses a node with %s', async (_what, attributes, message) => {
    const { node, initializers, packed } = makeLayer(nvfp4);
    const changed = { ...node, attributes: { ...node.attributes, ...attributes } };
    await expect(open(modelOf(changed, initializers, X), placeParts(initializers, packed))).rejects.toThrow(
      message,
    );
  });

  it('refuses a bias that is computed', async () => {
    const { node, initializers, packed } = makeLayer(nvfp4);
    const inputs = [...node.inputs];
    inputs[3] = 'bias';
    const bias: ValueInfo = { name: 'bias', dataType: 'float32', shape: [N] };
    const model = modelOf({ ...node, inputs }, initializers, X, bias);
    await expect(open(model, placeParts(initializers, packed))).rejects.toThrow(
      'input bias must be an initializer',
    );
  });
});
