import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { GraphBuilder, intAttribute } from '../../../src/graph/builder.js';
import type { Graph } from '../../../src/graph/ir.js';
import { parseModel } from '../../../src/graph/onnx.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import { distance, fillValues, runOnnx, writeOnnx } from '../../helpers/onnx-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const [K, H] = [64, 96];
const FLOAT = 1;
/** Sums in another order, in float32; of the largest output. */
const TOLERANCE = 1e-5;

let dir: string;
let file: string;
beforeEach(async () => {
  dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  file = path.join(dir, 'in', 'mlp.onnx');
});

type Change = (name: string, shape: readonly number[], data: Float32Array) => Float32Array;

/**
 * x [batch, tokens, K] through a MatMul with `up` [K, H] (external), a Relu, a MatMul with `down` [K, H] through a
 * Transpose; then rows [.., K] through a Gemm with `head` [H, K] (inside of the model) and a bias, and `up` again.
 */
function buildModel(opset = 21, change: Change = (_name, _shape, data) => data): Graph {
  const builder = GraphBuilder.create('mlp', new Map([['', opset]]));
  const external: Uint8Array[] = [];
  const weight = (name: string, shape: readonly number[], seed: number): string => {
    const data = change(name, shape, fillValues(shape[0]! * shape[1]!, seed));
    const offset = external.reduce((sum, { byteLength }) => sum + byteLength, 0);
    external.push(new Uint8Array(data.buffer));
    const place = {
      kind: 'external',
      file: path.join(dir, 'in', 'mlp.data'),
      offset,
      byteLength: data.byteLength,
    } as const;
    return builder.initializer({ name, dataType: 'float32', shape, data: place });
  };
  const value = (
    opType: string,
    inputs: readonly string[],
    shape: readonly (number | string)[],
    attributes = {},
  ): string =>
    builder
      .scope(opType.toLowerCase())
      .value({ opType, inputs, output: { dataType: 'float32', shape }, attributes });
  const x = builder.input('x', 'float32', ['batch', 'tokens', K]);
  const up = weight('up.weight', [K, H], 1);
  const first = value('Relu', [value('MatMul', [x, up], ['batch', 'tokens', H])], ['batch', 'tokens', H]);
  const turned = value('Transpose', [weight('down.weight', [K, H], 2)], [H, K]);
  const second = value('MatMul', [first, turned], ['batch', 'tokens', K]);
  const rows = value(
    'Reshape',
    [second, builder.constant('rows', 'int64', [2], BigInt64Array.of(-1n, BigInt(K)))],
    ['rows', K],
  );
  const head = builder.constant('head', 'float32', [H, K], change('head', [H, K], fillValues(H * K, 3)));
  const bias = builder.constant('bias', 'float32', [H], fillValues(H, 4));
  const gemm = value('Gemm', [rows, head, bias], ['rows', H], { transB: intAttribute(1) });
  const again = value('MatMul', [rows, up], ['rows', H]);
  builder.output(value('Add', [gemm, again], ['rows', H]));
  writeFileSync(path.join(dir, 'in', 'mlp.data'), Buffer.concat(external));
  return builder.build();
}

function writeModel(graph: Graph): void {
  writeOnnx(file, graph);
}

async function run(model: string, graph: Graph): Promise<Float32Array> {
  const data = new Float32Array(6 * H);
  const name = graph.outputs[0]!.name;
  await runOnnx(
    model,
    [{ name: 'x', dataType: 'float32', shape: [2, 3, K], data: fillValues(6 * K, 5) }],
    [{ name, dataType: 'float32', shape: [6, H], data }],
  );
  return data;
}

/** What a scheme leaves of a matrix; those stored [k, n] are quantized as [n, k]. */
function dequantize(scheme: string): Change {
  const { quantize, dequantize: restore } = resolveScheme(scheme);
  return (name, [rows = 0, columns = 0], data) => {
    const isTurned = name === 'up.weight';
    const turn = (from: Float32Array, n: number, k: number) =>
      Float32Array.from({ length: n * k }, (_, i) => from[(i % n) * k + Math.floor(i / n)]!);
    const shape = isTurned ? [columns, rows] : [rows, columns];
    const matrix = { name, dataType: 'float32', shape } as const;
    const bytes = new Uint8Array((isTurned ? turn(data, rows, columns) : data).buffer);
    const restored = restore(matrix, quantize(matrix, { firstRow: 0, bytes }));
    return isTurned ? turn(restored, columns, rows) : restored;
  };
}

const convertIt = (quantization: string, changes = {}) =>
  convertFolder(file, dir, quantization, { format: 'onnx', ...changes });

// Largest relative error: a step of the codes, twice where inputs are rounded too.
describe('fdq convert MODEL.onnx', () => {
  it.each([
    ['wint8', 1 / 127],
    ['wint4:g32', 1 / 7],
    ['fp8_per_channel', 2 / 16],
    ['block_wise_fp8', 2 / 16],
    ['w8a8', 2 / 127],
  ] as const)('gives %s the outputs of its weights, on standard operators', async (scheme, step) => {
    const graph = buildModel();
    writeModel(graph);
    const original = await run(file, graph);
    const report = await convertIt(scheme);
    expect(report).toMatchObject({ scheme, format: 'onnx', summary: expect.anything() as unknown });
    expect(readdirSync(report.output).sort()).toEqual(['model.onnx', 'model.onnx.data']);
    const written = path.join(report.output, 'model.onnx');
    const model = parseModel(readFileSync(written), { dir: report.output });
    expect([...new Set(model.nodes.map(({ domain }) => domain))].sort()).toEqual(
      scheme.startsWith('wint') || scheme === 'w8a8' ? ['', 'com.microsoft'] : [''],
    );
    expect(model.inputs).toEqual(graph.inputs);
    expect(model.outputs).toEqual(graph.outputs);
    const found = await run(written, graph);
    expect(distance(found, original)).toBeLessThan(step);
    expect(distance(found, original)).toBeGreaterThan(0);
    if (!scheme.startsWith('wint')) return;
    writeModel(buildModel(21, dequantize(scheme)));
    const expected = await run(file, graph);
    expect(distance(found, expected)).toBeLessThan(TOLERANCE);
  });

  it.each([9, 11, 12])(
    'writes MatMulNBits into a model of operator set %s, and gives its outputs',
    async (opset) => {
      const graph = buildModel(opset);
      writeModel(graph);
      const original = await run(file, graph);
      const { output, verified } = await convertIt('wint8', { verify: true });
      expect(verified).toContain('a cosine of at least');
      const written = path.join(output, 'model.onnx');
      const { nodes, opsets } = parseModel(readFileSync(written), { dir: output });
      expect(opsets.get('')).toBe(opset);
      expect(nodes.filter(({ opType }) => opType === 'MatMulNBits').length).toBeGreaterThan(1);
      expect(distance(await run(written, graph), original)).toBeLessThan(1 / 127);
      await rm(output, { recursive: true });
      await expect(convertIt('w8a8')).rejects.toMatchObject({
        code: 'unsupported_model',
        message: expect.stringContaining(`but the model is of ${opset}.`) as string,
      });
    },
  );

  it('keeps a shared matrix one tensor, and what is ignored as it was', async () => {
    writeModel(buildModel());
    const { output } = await convertIt(JSON.stringify({ quantization: 'wint8', ignore: ['down'] }));
    const model = parseModel(readFileSync(path.join(output, 'model.onnx')), { dir: output });
    const layers = model.nodes.filter(({ opType }) => opType === 'MatMulNBits');
    expect(layers.map(({ inputs }) => inputs[1])).toEqual(
      ['up.weight.transposed.quantized', 'head.quantized', 'up.weight.transposed.quantized'].map((name) =>
        name.replace('head', '/head'),
      ),
    );
    expect(model.initializers.has('up.weight')).toBe(false);
    expect(model.initializers.get('down.weight')).toMatchObject({ dataType: 'float32', shape: [K, H] });
  });

  it.each([
    ['another format', {}, { format: 'fdq' }, 'it is written as onnx, not as fdq'],
    [
      'an operator set that is too old',
      { opset: 17 },
      {},
      'becomes ReduceMax of operator set 18, but the model is of 17',
    ],
  ] as const)('refuses %s', async (_what, { opset = 21 }: { opset?: number }, changes, message) => {
    writeModel(buildModel(opset));
    await expect(convertIt('w8a8', changes)).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining(message) as string,
    });
    expect(readdirSync(dir)).toEqual(['in']);
  });

  it('looks through the Cast of a 16-bit matrix, which then goes', async () => {
    const builder = GraphBuilder.create('half', new Map([['', 21]]));
    const x = builder.input('x', 'float32', ['tokens', K]);
    const weight = builder.constant('w', 'bfloat16', [K, H], new Uint16Array(K * H).fill(0x3f80));
    const attributes = { to: intAttribute(FLOAT) };
    const wide = { dataType: 'float32', shape: [K, H] } as const;
    const cast = builder.value({ opType: 'Cast', inputs: [weight], output: wide, attributes });
    const product = { dataType: 'float32', shape: ['tokens', H] } as const;
    builder.output(builder.value({ opType: 'MatMul', inputs: [x, cast], output: product }));
    writeModel(builder.build());
    const { output } = await convertIt('wint8');
    const { nodes } = parseModel(readFileSync(path.join(output, 'model.onnx')), { dir: output });
    expect(nodes.map(({ opType }) => opType)).toEqual(['MatMulNBits']);
  });

  it('refuses models without a product of floats', async () => {
    const plain = GraphBuilder.create('plain', new Map([['', 21]]));
    const same = { dataType: 'float32', shape: ['n', K] } as const;
    plain.output(
      plain.value({ opType: 'Relu', inputs: [plain.input('x', 'float32', ['n', K])], output: same }),
    );
    writeModel(plain.build());
    await expect(convertIt('wint8')).rejects.toMatchObject({
      message: expect.stringContaining('has no MatMul, Gemm or MoE') as string,
    });
  });
});
