import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { elementTypeOf } from '../../src/graph/data-types.js';
import type { DataType, Graph } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import { loadRuntime } from '../../src/runtime/load-addon.js';

/** Values in -1 .. 1, the same for a seed. */
export function fillValues(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return state / 2 ** 30 - 1;
  });
}

export function writeOnnx(file: string, graph: Graph): void {
  writeFileSync(file, serializeModel(graph, { dir: path.dirname(file) }));
}

export interface TestTensor {
  readonly name: string;
  readonly dataType: DataType;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/** Runs a model with the ONNX Runtime fdq is installed with; fills the outputs. */
export async function runOnnx(
  file: string,
  inputs: readonly TestTensor[],
  outputs: readonly TestTensor[],
): Promise<void> {
  const { addon } = loadRuntime();
  const session = await addon.createSession({
    model: readFileSync(file),
    initializers: [],
    placeholderFolder: path.dirname(file),
    threads: 1,
    spinning: false,
    isa: addon.detectIsa(),
  });
  const tensors = (list: readonly TestTensor[]) =>
    list.map(({ dataType, ...tensor }) => ({ ...tensor, elementType: elementTypeOf(dataType) }));
  await session.run(tensors(inputs), tensors(outputs)).finally(() => session.close());
}

/** Largest difference, of the largest expected value. */
export function distance(found: Float32Array, expected: Float32Array): number {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return found.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i]!)), 0) / largest;
}
