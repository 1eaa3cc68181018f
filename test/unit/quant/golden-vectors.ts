import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { WeightTensor } from '../../../src/quant/scheme.js';

interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

export interface GoldenTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** A copy, aligned for any typed array. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A file of test/fixtures/quantizers, by its name without extension. */
export function readGolden(name: string): ReadonlyMap<string, GoldenTensor> {
  const path = fileURLToPath(new URL(`../../fixtures/quantizers/${name}.safetensors`, import.meta.url));
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE());
  const start = 8 + headerBytes;
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<string, Entry>;
  return new Map(
    Object.entries(header)
      .filter(([key]) => key !== '__metadata__')
      .map(
        ([
          key,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => [key, { dtype, shape, bytes: Uint8Array.from(file.subarray(start + begin, start + end)) }],
      ),
  );
}

export function goldenTensor(file: ReadonlyMap<string, GoldenTensor>, name: string): GoldenTensor {
  const tensor = file.get(name);
  if (tensor === undefined) throw new Error(`no golden tensor ${name}`);
  return tensor;
}

export function goldenFloats(file: ReadonlyMap<string, GoldenTensor>, name: string): Float32Array {
  return new Float32Array(goldenTensor(file, name).bytes.buffer);
}

/** Names without `prefix` of the tensors that have it. */
export function goldenCases(file: ReadonlyMap<string, GoldenTensor>, prefix: string): readonly string[] {
  return [...file.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
}

export function bf16Tensor(name: string, shape: readonly number[]): WeightTensor {
  return { name, dataType: 'bfloat16', shape };
}

/** Bits of a float array, so that -0, NaN and subnormals compare as they are. */
export function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(Float32Array.from(values).buffer);
}
