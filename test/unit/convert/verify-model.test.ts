import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { makeInputs } from '../../../src/convert/graph-input/made-up-inputs.js';
import { compareModel, probeModel } from '../../../src/convert/graph-input/verify-model.js';
import { GraphBuilder, intAttribute } from '../../../src/graph/builder.js';
import type { DataType, Dimension, Graph } from '../../../src/graph/ir.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import { fillValues, writeOnnx } from '../../helpers/onnx-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const [VOCAB, K, N] = [10, 64, 32];
/** Columns that wint8 rows are padded to, bytes of a row. */
const ROW_BLOCK = 128;

let dir: string;
let file: string;
beforeEach(async () => {
  dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  file = path.join(dir, 'in', 'model.onnx');
});

type Shape = readonly Dimension[];

/** ids through an embedding of VOCAB rows and a matrix; `changes` says of what type the rows become. */
function embedded(last: (builder: GraphBuilder, value: string) => string = (_, value) => value): Graph {
  const builder = GraphBuilder.create('g', new Map([['', 21]]));
  const ids = builder.input('ids', 'int32', ['batch', 'tokens']);
  const wide = value(builder, 'Cast', [ids], {
    dataType: 'int64',
    shape: ['batch', 'tokens'],
    attributes: { to: intAttribute(7) },
  });
  const table = builder.constant('table', 'float32', [VOCAB, K], fillValues(VOCAB * K, 1));
  const rows = value(builder, 'Gather', [table, wide], { shape: ['batch', 'tokens', K] });
  const matrix = builder.constant('matrix', 'float32', [K, N], fillValues(K * N, 2));
  builder.output(last(builder, value(builder, 'MatMul', [rows, matrix], { shape: ['batch', 'tokens', N] })));
  return builder.build();
}

function value(
  builder: GraphBuilder,
  opType: string,
  inputs: readonly string[],
  {
    dataType = 'float32',
    shape,
    attributes = {},
  }: { dataType?: DataType; shape: Shape; attributes?: object },
): string {
  return builder.value({ opType, inputs, output: { dataType, shape }, attributes: { ...attributes } });
}

describe('inputs made up for a model', () => {
  it('are the same each time, and ids of an embedding lie in it', () => {
    const [first] = makeInputs(embedded());
    expect(first).toMatchObject({ name: 'ids', dataType: 'int32', shape: [1, 8] });
    const ids = [...(first!.data as Int32Array)];
    expect(Math.max(...ids)).toBeLessThan(VOCAB);
    expect(Math.min(...ids)).toBeGreaterThanOrEqual(0);
    expect(new Set(ids).size).toBeGreaterThan(3);
    expect(makeInputs(embedded())).toEqual([first]);
  });

  it.each<[DataType, Shape, readonly number[], object]>([
    ['float32', ['n', 2], [8, 2], Float32Array],
    ['float64', ['n'], [8], Float64Array],
    ['float16', ['batch_size', 3], [1, 3], Uint16Array],
    ['int64', ['total_past_length'], [8], BigInt64Array],
    ['int8', [], [], Int8Array],
    ['uint8', [2], [2], Uint8Array],
    ['bool', [1], [1], Uint8Array],
    ['float32', ['batch', 2, 'past_sequence_length', 4], [1, 2, 0, 4], Float32Array],
  ])('have the type %s and the shape of %j', (dataType, shape, sizes, array) => {
    const [input] = makeInputs({ ...embedded(), inputs: [{ name: 'x', dataType, shape }] });
    expect(input?.shape).toEqual(sizes);
    expect(input?.data).toBeInstanceOf(array);
    expect(input?.data.length).toBe(sizes.reduce((product, size) => product * size, 1));
    if (array === BigInt64Array) expect([...(input?.data as BigInt64Array)]).toEqual(Array(8).fill(1n));
  });

  it('are refused for other types', () => {
    const inputs = [{ name: 'x', dataType: 'bfloat16', shape: [1] } as const];
    expect(() => makeInputs({ ...embedded(), inputs })).toThrow(/the input "x" is bfloat16/);
  });
});

const convertIt = () => convertFolder(file, dir, 'wint8', { format: 'onnx', verify: true });

const options = { threads: 1, bits: 8 } as const;

describe('--verify of an ONNX model', () => {
  it('compares the float model with the written one', async () => {
    writeOnnx(file, embedded());
    const { verified, output } = await convertIt();
    expect(verified).toMatch(/^1 output has a cosine of at least 0\.9999\d+ with the float model's/);
    const probe = await probeModel(embedded(), file, 1);
    const data = path.join(output, 'model.onnx.data');
    const bytes = readFileSync(data);
    writeFileSync(
      data,
      bytes.map((byte, at) => (at < N * ROW_BLOCK ? 255 - byte : byte)),
    );
    await expect(compareModel(probe, path.join(output, 'model.onnx'), options)).rejects.toMatchObject({
      code: 'check_failed',
      message: expect.stringMatching(/has a cosine of -0\.99\d+ with it, less than 0\.9/) as string,
    });
    writeFileSync(data, bytes.subarray(0, 10));
    await expect(compareModel(probe, path.join(output, 'model.onnx'), options)).rejects.toMatchObject({
      code: 'check_failed',
      message: expect.stringContaining('ONNX Runtime fails on it') as string,
    });
    writeOnnx(
      file,
      embedded((builder, x) => value(builder, 'Transpose', [x], { shape: [N, 'tokens', 'batch'] })),
    );
    const name = [...probe.outputs.keys()][0]!;
    await expect(compareModel(probe, file, { ...options, bits: 4 })).rejects.toMatchObject({
      message: expect.stringContaining(`"${name}" is [`) as string,
    });
  });

  it.each<[string, (builder: GraphBuilder, x: string) => string, string]>([
    [
      'fails on them',
      (builder, x) => {
        const shape = builder.constant('shape', 'int64', [1], BigInt64Array.of(7n));
        return value(builder, 'Reshape', [x, shape], { shape: [7] });
      },
      'ONNX Runtime fails on ids int32 [1, 8]',
    ],
    [
      'gives no floats',
      (builder, x) => value(builder, 'ArgMax', [x], { dataType: 'int64', shape: [1, 'tokens', N] }),
      'it gives no values of floats',
    ],
    [
      'gives no numbers',
      (builder, x) => value(builder, 'Sqrt', [x], { shape: ['batch', 'tokens', N] }),
      'is not finite on ids',
    ],
  ])('is refused before anything is written when the model %s', async (_what, last, message) => {
    writeOnnx(file, embedded(last));
    await expect(convertIt()).rejects.toMatchObject({
      code: 'unsupported_model',
      param: '--verify',
      message: expect.stringContaining(message) as string,
    });
  });
});
