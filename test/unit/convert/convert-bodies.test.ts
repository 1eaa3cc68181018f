import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { GraphBuilder, intAttribute, stringAttribute } from '../../../src/graph/builder.js';
import type { Attribute, DataType, Graph, GraphNode, Initializer, Subgraph } from '../../../src/graph/ir.js';
import { parseModel } from '../../../src/graph/onnx.js';
import { listScopes } from '../../../src/graph/scopes.js';
import { decodeFp16, encodeFp16 } from '../../../src/quant/numerics/fp16.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import { distance, fillValues, runOnnx, writeOnnx, type TestTensor } from '../../helpers/onnx-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const [K, H] = [64, 96];
const OPSETS = new Map([
  ['', 21],
  ['com.microsoft', 1],
]);
/** Sums in another order, in float32; of the largest output. */
const TOLERANCE = 1e-5;
/** Values and scales of float16, 11 bits. */
const HALF_TOLERANCE = 4e-3;

let dir: string;
let file: string;
beforeEach(async () => {
  dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  file = path.join(dir, 'in', 'model.onnx');
});

const convertIt = (quantization: string) => convertFolder(file, dir, quantization, { format: 'onnx' });

function readOutput(output: string): Graph {
  return parseModel(readFileSync(path.join(output, 'model.onnx')), { dir: output });
}

/** A float32 matrix with what a scheme leaves of [n, k]; `scheme` absent: as it is. */
function matrix(n: number, k: number, seed: number, scheme?: string): Float32Array {
  const data = fillValues(n * k, seed);
  if (scheme === undefined) return data;
  const { quantize, dequantize } = resolveScheme(scheme);
  const shape = { name: 'w', dataType: 'float32', shape: [n, k] } as const;
  return dequantize(shape, quantize(shape, { firstRow: 0, bytes: new Uint8Array(data.buffer) }));
}

function inline(name: string, shape: readonly number[], data: ArrayBufferView): Initializer {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const dataType: DataType = data instanceof Uint16Array ? 'float16' : 'float32';
  return { name, dataType, shape, data: { kind: 'inline', bytes } };
}

function node(
  opType: string,
  inputs: readonly string[],
  output: string,
  attributes: Record<string, Attribute> = {},
): GraphNode {
  return { name: `/${output}/${opType}`, opType, domain: '', inputs, outputs: [output], attributes };
}

function body(name: string, nodes: readonly GraphNode[], initializers: readonly Initializer[]): Subgraph {
  return {
    name,
    inputs: [],
    outputs: [{ name: nodes.at(-1)!.outputs[0]!, dataType: 'float32' }],
    nodes,
    initializers: new Map(initializers.map((each) => [each.name, each])),
    values: new Map(),
  };
}

const transB = { transB: intAttribute(1) };

/**
 * x [t, K] and a condition: y = x outer^T where it holds, else (x w^T) outer^T... with `w` of the branch itself; the
 * graph around them has a `w` too, which z = x w^T reads.
 */
function branches(scheme?: string): Graph {
  const outer = inline('outer', [H, K], matrix(H, K, 1, scheme));
  const w = inline('w', [H, K], matrix(H, K, 2, scheme));
  const own = inline('w', [K, K], matrix(K, K, 3, scheme));
  const yes = body('yes', [node('Gemm', ['x', 'outer'], 'a', transB)], []);
  const no = body(
    'no',
    [node('Gemm', ['x', 'w'], 'b', transB), node('Gemm', ['b', 'outer'], 'c', transB)],
    [own],
  );
  const floats = (name: string) => ({ name, dataType: 'float32' as const, shape: ['t', H] });
  return {
    name: 'branches',
    opsets: OPSETS,
    inputs: [
      { name: 'x', dataType: 'float32', shape: ['t', K] },
      { name: 'holds', dataType: 'bool', shape: [] },
    ],
    outputs: [floats('y'), floats('z')],
    nodes: [
      node('If', ['holds'], 'y', {
        then_branch: { type: 'graph', value: yes },
        else_branch: { type: 'graph', value: no },
      }),
      node('Gemm', ['x', 'w'], 'z', transB),
    ],
    initializers: new Map([outer, w].map((each) => [each.name, each])),
    values: new Map(),
    metadata: new Map(),
  };
}

async function runBranches(model: string, holds: boolean): Promise<Float32Array> {
  const y = new Float32Array(3 * H);
  const z = new Float32Array(3 * H);
  await runOnnx(
    model,
    [
      { name: 'x', dataType: 'float32', shape: [3, K], data: fillValues(3 * K, 9) },
      { name: 'holds', dataType: 'bool', shape: [], data: Uint8Array.of(Number(holds)) },
    ],
    [
      { name: 'y', dataType: 'float32', shape: [3, H], data: y },
      { name: 'z', dataType: 'float32', shape: [3, H], data: z },
    ],
  );
  return Float32Array.of(...y, ...z);
}

/** x [3, k] w^T, w [n, k]. */
function multiply(x: Float32Array, w: Float32Array, k: number): Float32Array {
  const n = w.length / k;
  return Float32Array.from({ length: (x.length / k) * n }, (_, at) => {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += x[row * k + i]! * w[column * k + i]!;
    return sum;
  });
}

describe('bodies of If, Loop and Scan', () => {
  it.each(['wint8', 'wint4:g32'])('holds %s weights of the right graph, each once', async (scheme) => {
    writeOnnx(file, branches());
    const { output } = await convertIt(scheme);
    const model = readOutput(output);
    const products = listScopes(model).flatMap(({ graph }) =>
      graph.nodes.filter(({ opType }) => opType === 'MatMulNBits').map(({ inputs }) => inputs[1]),
    );
    expect(products.sort()).toEqual(
      ['outer.quantized', 'outer.quantized', 'w.quantized', 'w.quantized_1'].sort(),
    );
    const codes = [...model.initializers.values()].filter(({ dataType }) => dataType === 'uint8');
    expect(codes).toHaveLength(3);
    for (const { graph } of listScopes(model).slice(1)) expect(graph.initializers.size).toBe(0);
    const x = fillValues(3 * K, 9);
    const [outer, w, own] = [matrix(H, K, 1, scheme), matrix(H, K, 2, scheme), matrix(K, K, 3, scheme)];
    const z = multiply(x, w, K);
    const written = path.join(output, 'model.onnx');
    const then = Float32Array.of(...multiply(x, outer, K), ...z);
    expect(distance(await runBranches(written, true), then)).toBeLessThan(TOLERANCE);
    const otherwise = Float32Array.of(...multiply(multiply(x, own, K), outer, K), ...z);
    expect(distance(await runBranches(written, false), otherwise)).toBeLessThan(TOLERANCE);
  });

  it('runs schemes that round inputs in a body', async () => {
    writeOnnx(file, branches());
    const { output } = await convertIt('w8a8');
    const x = fillValues(3 * K, 9);
    const expected = Float32Array.of(...multiply(x, matrix(H, K, 1), K), ...multiply(x, matrix(H, K, 2), K));
    const found = await runBranches(path.join(output, 'model.onnx'), true);
    expect(distance(found, expected)).toBeLessThan(2 / 127);
  });

  it('multiplies in a Loop with a matrix turned outside of it', async () => {
    const next = body('next', [node('MatMul', ['h', 'turned'], 'm'), node('Tanh', ['m'], 'out')], []);
    const loop: Subgraph = {
      ...next,
      inputs: [
        { name: 'i', dataType: 'int64', shape: [] },
        { name: 'go', dataType: 'bool', shape: [] },
        { name: 'h', dataType: 'float32' },
      ],
      outputs: [{ name: 'still', dataType: 'bool', shape: [] }, ...next.outputs],
      nodes: [...next.nodes, node('Identity', ['go'], 'still')],
    };
    const weight = inline('w', [K, K], matrix(K, K, 4));
    const floats = { dataType: 'float32' as const, shape: ['t', K] };
    writeOnnx(file, {
      ...branches(),
      inputs: [
        { name: 'x', ...floats },
        { name: 'times', dataType: 'int64', shape: [] },
      ],
      outputs: [{ name: 'y', ...floats }],
      nodes: [
        node('Transpose', ['w'], 'turned'),
        node('Loop', ['times', '', 'x'], 'y', { body: { type: 'graph', value: loop } }),
      ],
      initializers: new Map([['w', weight]]),
    });
    const { output } = await convertIt('wint8');
    const found = new Float32Array(3 * K);
    const x = fillValues(3 * K, 9);
    await runOnnx(
      path.join(output, 'model.onnx'),
      [
        { name: 'x', dataType: 'float32', shape: [3, K], data: x },
        { name: 'times', dataType: 'int64', shape: [], data: BigInt64Array.of(2n) },
      ],
      [{ name: 'y', dataType: 'float32', shape: [3, K], data: found }],
    );
    const step = (h: Float32Array) => multiply(h, matrix(K, K, 4, 'wint8'), K).map(Math.tanh);
    expect(distance(found, step(step(x)))).toBeLessThan(TOLERANCE);
    expect(readOutput(output).nodes.map(({ opType }) => opType)).toEqual(['Loop']);
  });
});

const asHalf = (data: Float32Array): Uint16Array => Uint16Array.from(data, encodeFp16);
const fromHalf = (data: Uint16Array): Float32Array => Float32Array.from(data, decodeFp16);

/** y = x w^T + b in float16; the weight of a MatMul or of a Gemm. */
function halfModel(opType: 'MatMul' | 'Gemm'): Graph {
  const w = inline('w', [H, K], asHalf(matrix(H, K, 1)));
  const b = inline('b', [H], asHalf(fillValues(H, 2)));
  const [input, output] =
    opType === 'Gemm'
      ? ([['t'], ['t']] as const)
      : ([
          ['b', 't'],
          ['b', 't'],
        ] as const);
  const nodes =
    opType === 'Gemm'
      ? [node('Gemm', ['x', 'w', 'b'], 'y', transB)]
      : [
          node('Transpose', ['w'], 'turned'),
          node('MatMul', ['x', 'turned'], 'm'),
          node('Add', ['m', 'b'], 'y'),
        ];
  return {
    ...branches(),
    inputs: [{ name: 'x', dataType: 'float16', shape: [...input, K] }],
    outputs: [{ name: 'y', dataType: 'float16', shape: [...output, H] }],
    nodes,
    initializers: new Map([w, b].map((each) => [each.name, each])),
  };
}

describe('float16 graphs', () => {
  it.each([
    ['MatMul', 'wint8', 1 / 127, ['MatMulNBits', 'Add']],
    ['Gemm', 'wint4:g32', 1 / 7, ['MatMulNBits', 'Add']],
    ['MatMul', 'fp8_per_channel', 2 / 16, undefined],
    ['Gemm', 'w8a8', 2 / 127, undefined],
  ] as const)('keep %s of %s in their type', async (opType, scheme, step, operators) => {
    const graph = halfModel(opType);
    writeOnnx(file, graph);
    const { output } = await convertIt(scheme);
    const shape = opType === 'Gemm' ? [2] : [1, 2];
    const x = asHalf(fillValues(2 * K, 9));
    const run = async (model: string): Promise<Float32Array> => {
      const y: TestTensor & { data: Uint16Array } = {
        name: 'y',
        dataType: 'float16',
        shape: [...shape, H],
        data: new Uint16Array(2 * H),
      };
      await runOnnx(model, [{ name: 'x', dataType: 'float16', shape: [...shape, K], data: x }], [y]);
      return fromHalf(y.data);
    };
    const [expected, found] = [await run(file), await run(path.join(output, 'model.onnx'))];
    expect(distance(found, expected)).toBeLessThan(step);
    const model = readOutput(output);
    expect(model.outputs).toEqual(graph.outputs);
    if (operators === undefined) return;
    expect(model.nodes.map(({ opType: each }) => each)).toEqual(operators);
    expect([...model.initializers.values()].filter(({ dataType }) => dataType === 'float32')).toEqual([]);
    const bias = fromHalf(asHalf(fillValues(H, 2)));
    const halves = fromHalf(asHalf(matrix(H, K, 1)));
    const { quantize, dequantize } = resolveScheme(scheme);
    const info = { name: 'w', dataType: 'float32', shape: [H, K] } as const;
    const left = dequantize(info, quantize(info, { firstRow: 0, bytes: new Uint8Array(halves.buffer) }));
    const exact = multiply(fromHalf(x), left, K).map((value, at) => value + bias[at % H]!);
    expect(distance(found, exact)).toBeLessThan(HALF_TOLERANCE);
  });

  it('multiply bfloat16 values between casts', async () => {
    const builder = GraphBuilder.create('brain', new Map([['', 21]]));
    const x = builder.input('x', 'bfloat16', ['t', K]);
    const w = builder.constant('w', 'bfloat16', [K, H], new Uint16Array(K * H).fill(0x3f80));
    builder.output(
      builder.value({
        opType: 'MatMul',
        inputs: [x, w],
        output: { name: 'y', dataType: 'bfloat16', shape: ['t', H] },
      }),
    );
    writeOnnx(file, builder.build());
    const { output } = await convertIt('wint8');
    expect(readOutput(output).nodes.map(({ opType }) => opType)).toEqual(['Cast', 'MatMulNBits', 'Cast']);
    const y = new Uint16Array(H);
    const ones = new Uint16Array(K).fill(0x3f80);
    await runOnnx(
      path.join(output, 'model.onnx'),
      [{ name: 'x', dataType: 'bfloat16', shape: [1, K], data: ones }],
      [{ name: 'y', dataType: 'bfloat16', shape: [1, H], data: y }],
    );
    expect([...new Set(y)]).toEqual([0x4280]);
  });
});

const [EXPERTS, INNER] = [3, 32];

/** A MoE over x [t, K] and routes [t, EXPERTS]. */
function experts(
  changes: {
    readonly attributes?: Record<string, Attribute>;
    readonly fc1?: readonly number[];
    readonly fc3?: string;
  } = {},
  scheme?: string,
): Graph {
  const { attributes = {}, fc1 = [EXPERTS, INNER, K], fc3 } = changes;
  const [count = 0, inner = 0, hidden = 0] = fc1;
  const weights = [
    inline('fc1', fc1, matrix(count * inner, hidden, 1, scheme)),
    inline('b1', [EXPERTS, inner], fillValues(EXPERTS * inner, 2)),
    inline('fc2', [EXPERTS, K, INNER], matrix(EXPERTS * K, INNER, 3, scheme)),
  ];
  const inputs = ['x', 'routes', 'fc1', 'b1', 'fc2', ...(fc3 === undefined ? [] : ['', fc3])];
  return {
    ...branches(),
    inputs: [
      { name: 'x', dataType: 'float32', shape: ['t', K] },
      { name: 'routes', dataType: 'float32', shape: ['t', EXPERTS] },
    ],
    outputs: [{ name: 'y', dataType: 'float32', shape: ['t', K] }],
    nodes: [
      {
        ...node('MoE', inputs, 'y', {
          k: intAttribute(2),
          activation_type: stringAttribute('silu'),
          ...attributes,
        }),
        domain: 'com.microsoft',
      },
    ],
    initializers: new Map(weights.map((each) => [each.name, each])),
  };
}

async function runExperts(model: string): Promise<Float32Array> {
  const y = new Float32Array(4 * K);
  await runOnnx(
    model,
    [
      { name: 'x', dataType: 'float32', shape: [4, K], data: fillValues(4 * K, 5) },
      { name: 'routes', dataType: 'float32', shape: [4, EXPERTS], data: fillValues(4 * EXPERTS, 6) },
    ],
    [{ name: 'y', dataType: 'float32', shape: [4, K], data: y }],
  );
  return y;
}

const swiglu = {
  activation_type: stringAttribute('swiglu'),
  swiglu_fusion: intAttribute(1),
};

describe('experts', () => {
  it.each([
    ['wint8', {}],
    ['wint8', { attributes: { normalize_routing_weights: intAttribute(1) } }],
    ['wint4', {}],
    ['wint4:g32', {}],
    ['wint4:g32', { attributes: swiglu, fc1: [EXPERTS, 2 * INNER, K] }],
  ])('become a QMoE of %s', async (scheme, changes) => {
    writeOnnx(file, experts(changes, scheme));
    const expected = await runExperts(file);
    writeOnnx(file, experts(changes));
    const { output } = await convertIt(scheme);
    const model = readOutput(output);
    expect(model.nodes.at(-1)).toMatchObject({ opType: 'QMoE' });
    expect([...model.initializers.keys()].sort()).toEqual(
      ['b1', ...['fc1', 'fc2'].flatMap((name) => [`${name}.quantized`, `${name}.quantized.scales`])].sort(),
    );
    expect(distance(await runExperts(path.join(output, 'model.onnx')), expected)).toBeLessThan(TOLERANCE);
  });

  it.each([
    ['a scheme that rounds inputs', 'w8a8', {}, 'cannot hold int8'],
    ['a scheme that is not of integers', 'fp8_per_channel', {}, 'cannot hold e4m3'],
    ['columns that groups do not divide', 'wint4:g64', {}, 'has 32 columns, not a multiple of the 64'],
    [
      'parts of different schemes',
      JSON.stringify({ quantization: 'wint8', targets: { fc1: 'wint4' } }),
      {},
      'has parts of different schemes',
    ],
    [
      'one part that stays',
      JSON.stringify({ quantization: 'wint8', ignore: ['fc1'] }),
      {},
      'has parts of different schemes',
    ],
    ['a third matrix', 'wint8', { fc3: 'fc1' }, 'its third matrix (FC3)'],
    [
      'halves apart',
      'wint8',
      { attributes: { activation_type: stringAttribute('swiglu') } },
      'not interleaved',
    ],
    ['the old layout', 'wint8', { fc1: [EXPERTS, K, INNER] }, 'not [experts, out, in]'],
  ] as const)('are refused with %s', async (_what, scheme, changes, message) => {
    writeOnnx(file, experts(changes));
    await expect(convertIt(scheme)).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining(message) as string,
    });
  });
});
