import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { ConvertReport } from '../../src/convert/convert.js';
import { intAttribute } from '../../src/graph/builder.js';
import type { Attribute, DataType, Graph, GraphNode, Initializer } from '../../src/graph/ir.js';
import { parseModel } from '../../src/graph/onnx.js';
import { resolveScheme } from '../../src/quant/registry.js';
import { convertFolder } from './convert-fixture.js';
import { fillValues, writeOnnx } from './onnx-model.js';
import { createTempDir } from './temp-dir.js';

/** Inner and outer size of most matrices. */
export const [K, H] = [64, 96];
/** Sums in another order, in float32; of the largest output. */
export const TOLERANCE = 1e-5;

/** An ONNX file in a folder of its own, and what it is converted to beside it. */
export interface ConvertedFile {
  readonly file: string;
  write(graph: Graph): void;
  convert(quantization: string): Promise<ConvertReport>;
}

export async function createConvertedFile(): Promise<ConvertedFile> {
  const dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  const file = path.join(dir, 'in', 'model.onnx');
  return {
    file,
    write: (graph) => writeOnnx(file, graph),
    convert: (quantization) => convertFolder(file, dir, quantization, { format: 'onnx' }),
  };
}

export function readOutput(output: string): Graph {
  return parseModel(readFileSync(path.join(output, 'model.onnx')), { dir: output });
}

/** A float32 matrix with what a scheme leaves of [n, k]; `scheme` absent: as it is. */
export function matrix(n: number, k: number, seed: number, scheme?: string): Float32Array {
  const data = fillValues(n * k, seed);
  if (scheme === undefined) return data;
  const { quantize, dequantize } = resolveScheme(scheme);
  const shape = { name: 'w', dataType: 'float32', shape: [n, k] } as const;
  return dequantize(shape, quantize(shape, { firstRow: 0, bytes: new Uint8Array(data.buffer) }));
}

export function inline(name: string, shape: readonly number[], data: ArrayBufferView): Initializer {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const dataType: DataType = data instanceof Uint16Array ? 'float16' : 'float32';
  return { name, dataType, shape, data: { kind: 'inline', bytes } };
}

export function node(
  opType: string,
  inputs: readonly string[],
  output: string,
  attributes: Record<string, Attribute> = {},
): GraphNode {
  return { name: `/${output}/${opType}`, opType, domain: '', inputs, outputs: [output], attributes };
}

export const transB = { transB: intAttribute(1) };

/** A graph of opset 21 with weights by name. */
export function graphOf(
  parts: Pick<Graph, 'inputs' | 'outputs' | 'nodes'>,
  weights: readonly Initializer[],
): Graph {
  return {
    name: 'test',
    opsets: new Map([
      ['', 21],
      ['com.microsoft', 1],
    ]),
    ...parts,
    initializers: new Map(weights.map((each) => [each.name, each])),
    values: new Map(),
    metadata: new Map(),
  };
}

/** x [3, k] w^T, w [n, k]. */
export function multiply(x: Float32Array, w: Float32Array, k: number): Float32Array {
  const n = w.length / k;
  return Float32Array.from({ length: (x.length / k) * n }, (_, at) => {
    const [row, column] = [Math.floor(at / n), at % n];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += x[row * k + i]! * w[column * k + i]!;
    return sum;
  });
}
