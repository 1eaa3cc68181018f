import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../../src/graph/builder.js';
import type { Graph } from '../../../src/graph/ir.js';
import { decodeFp16, encodeFp16 } from '../../../src/quant/numerics/fp16.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import {
  createConvertedFile,
  graphOf,
  H,
  inline,
  K,
  matrix,
  multiply,
  node,
  readOutput,
  transB,
  type ConvertedFile,
} from '../../helpers/convert-graph.js';
import { distance, fillValues, runOnnx, type TestTensor } from '../../helpers/onnx-model.js';

let source: ConvertedFile;
beforeEach(async () => {
  source = await createConvertedFile();
});

/** Values and scales of float16, 11 bits. */
const HALF_TOLERANCE = 4e-3;

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
  const inputs = [{ name: 'x', dataType: 'float16', shape: [...input, K] }] as const;
  const outputs = [{ name: 'y', dataType: 'float16', shape: [...output, H] }] as const;
  return graphOf({ inputs, outputs, nodes }, [w, b]);
}

describe('float16 graphs', () => {
  it.each([
    ['MatMul', 'wint8', 1 / 127, ['MatMulNBits', 'Add']],
    ['Gemm', 'wint4:g32', 1 / 7, ['MatMulNBits', 'Add']],
    ['MatMul', 'fp8_per_channel', 2 / 16, undefined],
    ['Gemm', 'w8a8', 2 / 127, undefined],
  ] as const)('keep %s of %s in their type', async (opType, scheme, step, operators) => {
    const graph = halfModel(opType);
    source.write(graph);
    const { output } = await source.convert(scheme);
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
    const [expected, found] = [await run(source.file), await run(path.join(output, 'model.onnx'))];
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
    source.write(builder.build());
    const { output } = await source.convert('wint8');
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
