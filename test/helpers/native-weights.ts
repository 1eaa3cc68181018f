import { dequantizeActivation, quantizeActivation } from '../../src/quant/activation.js';
import { encodeBf16 } from '../../src/quant/numerics/bf16.js';
import { encodeFp16 } from '../../src/quant/numerics/fp16.js';
import { widenFloats, type FloatType } from '../../src/quant/numerics/floats.js';
import { packedRowBytes } from '../../src/quant/numerics/packing.js';
import { canonicalColumns, codeBits, memberSlices } from '../../src/quant/packed-layout.js';
import type { NativeFormat, QuantizedParts, QuantScheme, WeightTensor } from '../../src/quant/scheme.js';
import type { IsaName, QuantizeResult } from '../../src/runtime/addon.js';
import { openAddon } from './addon.js';

export interface Matrix {
  readonly tensor: WeightTensor;
  /** As in a checkpoint. */
  readonly bytes: Uint8Array;
  /** The same, widened. */
  readonly values: Float32Array;
}

/** A matrix of a checkpoint; `fill` is rounded to the data type. */
export function makeMatrix(
  [n, k]: readonly [number, number],
  fill: (at: number) => number,
  dataType: FloatType = 'bfloat16',
): Matrix {
  const width = dataType === 'float32' ? 4 : 2;
  const view = new DataView(new ArrayBuffer(n * k * width));
  for (let i = 0; i < n * k; i++) {
    if (dataType === 'float32') view.setFloat32(4 * i, fill(i), true);
    else view.setUint16(2 * i, dataType === 'bfloat16' ? encodeBf16(fill(i)) : encodeFp16(fill(i)), true);
  }
  const bytes = new Uint8Array(view.buffer);
  const tensor = { name: 'the.weight', dataType, shape: [n, k] };
  return { tensor, bytes, values: widenFloats(bytes, dataType) };
}

export interface NativeOptions {
  readonly packed: boolean;
  readonly threads: number;
  readonly isa?: IsaName;
  readonly tensorScale?: number;
}

/** What the native quantizer makes of a matrix; every byte it does not write is left at a value no code has. */
export async function quantizeNatively(
  { tensor, bytes }: Matrix,
  native: NativeFormat,
  options: NativeOptions,
): Promise<{ readonly parts: QuantizedParts; readonly result: QuantizeResult }> {
  const [n, k] = tensor.shape as [number, number];
  const [slice] = memberSlices([n], k, native);
  if (slice === undefined) throw new Error('no rows');
  const sizes = options.packed ? slice : canonicalSizes(n, k, native);
  const codes = new Uint8Array(sizes.weightBytes).fill(0xa5);
  const scales = new Float32Array(sizes.scaleCount).fill(NaN);
  const blockScales = new Uint8Array(sizes.blockScaleBytes).fill(0xa5);
  const parts = { codes, scales, ...(native.block === undefined ? {} : { blockScales }) };
  const result = await openAddon().addon.quantize({
    source: { bytes },
    dataType: tensor.dataType as FloatType,
    n,
    k,
    ...native,
    ...options,
    weight: codes,
    scales,
    ...(native.block === undefined ? {} : { blockScales }),
  });
  return { parts, result };
}

function canonicalSizes(
  n: number,
  k: number,
  native: NativeFormat,
): { readonly weightBytes: number; readonly scaleCount: number; readonly blockScaleBytes: number } {
  const across = native.groupK === 0 ? 1 : Math.ceil(k / native.groupK);
  const down = { '-1': 0, 0: 1, 1: n, 128: Math.ceil(n / 128) }[native.groupN];
  const { block } = native;
  return {
    weightBytes: n * packedRowBytes(canonicalColumns(k, native), codeBits(native.format)),
    scaleCount: down * across,
    blockScaleBytes:
      block === undefined ? 0 : n * Math.ceil(k / block.columns) * (block.type === 'bfloat16' ? 2 : 1),
  };
}

/** x as the layers of a scheme see it, [tokens, k]. */
export function roundActivations(scheme: QuantScheme, x: Float32Array, k: number): Float32Array {
  const key = scheme.activation;
  if (key === null) return x;
  const codes = quantizeActivation(key, { name: 'x', rows: x.length / k, k, values: x });
  return dequantizeActivation(key, codes, k);
}

/** What two arrays first differ in, for arrays that are too long for `toEqual`; undefined when they are equal. */
export function findDifference(
  actual: Uint8Array | Uint32Array | undefined,
  expected: Uint8Array | Uint32Array,
): string | undefined {
  if (actual?.length !== expected.length) return `length ${actual?.length}, expected ${expected.length}`;
  const at = expected.findIndex((value, i) => actual[i] !== value);
  return at === -1 ? undefined : `${actual[at]} at ${at}, expected ${expected[at]}`;
}

/** The same for the parts of a weight; floats are compared by their bits. */
export function findPartDifference(actual: QuantizedParts, expected: QuantizedParts): string | undefined {
  const bits = ({ buffer, byteOffset, length }: Float32Array): Uint32Array =>
    new Uint32Array(buffer, byteOffset, length);
  const differences = {
    codes: findDifference(actual.codes, expected.codes),
    scales: findDifference(bits(actual.scales), bits(expected.scales)),
    blockScales: findDifference(
      actual.blockScales ?? new Uint8Array(),
      expected.blockScales ?? new Uint8Array(),
    ),
  };
  const found = Object.entries(differences).flatMap(([part, text]) =>
    text === undefined ? [] : [`${part}: ${text}`],
  );
  return found.length === 0 ? undefined : found.join('; ');
}
