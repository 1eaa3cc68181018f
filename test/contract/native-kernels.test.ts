import { describe, expect, it } from 'vitest';
import { encodeBf16 } from '../../src/quant/numerics/bf16.js';
import { packedWeightBytes, packPanels, scaleCount } from '../../src/quant/packed-layout.js';
import { SCHEMES } from '../../src/quant/registry.js';
import type { NativeFormat, QuantizedParts, QuantScheme, WeightTensor } from '../../src/quant/scheme.js';
import { quantizeActivationE4m3 } from '../../src/quant/block-wise-fp8.js';
import type { IsaName, QuantizeResult } from '../../src/runtime/addon.js';
import { openAddon } from '../helpers/addon.js';

const { addon } = openAddon();
const ALL_ISAS: readonly IsaName[] = ['scalar', 'avx2', 'avx512', 'avx512_bf16', 'amx'];
/** Every instruction set this machine has. */
const isas = ALL_ISAS.slice(0, ALL_ISAS.indexOf(addon.detectIsa()) + 1);
const quantized = SCHEMES.filter(
  (scheme): scheme is QuantScheme & { native: NativeFormat } => scheme.native !== null,
);

const SHAPES = [
  [1, 1],
  [3, 17],
  [16, 64],
  [31, 129],
  [130, 100],
  [257, 300],
] as const;

interface Weight {
  readonly tensor: WeightTensor;
  readonly bytes: Uint8Array;
}

function bfloat16Weight(n: number, k: number, at: (i: number) => number): Weight {
  const codes = Uint16Array.from({ length: n * k }, (_, i) => encodeBf16(at(i)));
  return {
    tensor: { name: 'the.weight', dataType: 'bfloat16', shape: [n, k] },
    bytes: new Uint8Array(codes.buffer),
  };
}

/** Deterministic, with magnitudes from 1e-6 to 10 and exact zeros. */
function noise(i: number): number {
  return i % 11 === 3 ? 0 : Math.sin(i * 12.9898) * 10 ** (-6 + (i % 8));
}

async function quantizeNatively(
  { tensor, bytes }: Weight,
  native: NativeFormat,
  options: { readonly packed: boolean; readonly threads: number; readonly isa: IsaName },
): Promise<QuantizedParts & { readonly result: QuantizeResult }> {
  const [n, k] = tensor.shape as [number, number];
  const rowBytes = native.format === 'int4' ? Math.ceil(k / 2) : k;
  const across = native.groupK === 0 ? 1 : Math.ceil(k / native.groupK);
  const canonicalScales = native.groupN === 1 ? n * across : Math.ceil(n / 128) * across;
  const codes = new Uint8Array(options.packed ? packedWeightBytes([n], k, native.format) : n * rowBytes).fill(
    0xa5,
  );
  const scales = new Float32Array(options.packed ? scaleCount([n], k, native) : canonicalScales).fill(NaN);
  const result = await addon.quantize({
    source: { bytes },
    dataType: 'bfloat16',
    n,
    k,
    ...native,
    ...options,
    weight: codes,
    scales,
  });
  return { codes, scales, result };
}

describe.each(quantized.map((scheme) => [scheme.name, scheme] as const))(
  '%s in native code',
  (_name, scheme) => {
    it.each(isas)(
      '%s quantizes to the oracle’s bytes, packed or not, on any number of threads',
      async (isa) => {
        for (const [n, k] of SHAPES) {
          const weight = bfloat16Weight(n, k, noise);
          const oracle = scheme.quantize(weight.tensor, { firstRow: 0, bytes: weight.bytes });
          const packed = packPanels({ n, k, native: scheme.native }, oracle);
          for (const threads of [1, 3]) {
            const options = { threads, isa };
            const plain = await quantizeNatively(weight, scheme.native, { ...options, packed: false });
            expect(plain, `[${n}, ${k}]`).toEqual({ ...oracle, result: { status: 'ok' } });
            const panels = await quantizeNatively(weight, scheme.native, { ...options, packed: true });
            expect(panels, `[${n}, ${k}] packed`).toEqual({ ...packed, result: { status: 'ok' } });
          }
        }
      },
    );

    it.each(isas)('%s names the first weight that is not finite', async (isa) => {
      const weight = bfloat16Weight(200, 70, (i) =>
        i === 137 * 70 + 5 || i === 150 * 70 ? Infinity : noise(i),
      );
      const { result } = await quantizeNatively(weight, scheme.native, { packed: true, threads: 2, isa });
      expect(result).toEqual({ status: 'non_finite', row: 137, column: 5 });
    });

    it.each(isas)('%s multiplies as the oracle says, and every token alone as in a batch', async (isa) => {
      for (const [n, k] of SHAPES) {
        const weight = bfloat16Weight(n, k, (i) => Math.sin(i * 7.13) * 0.5);
        const oracle = scheme.quantize(weight.tensor, { firstRow: 0, bytes: weight.bytes });
        const packed = packPanels({ n, k, native: scheme.native }, oracle);
        const tokens = 5;
        const x = Float32Array.from({ length: tokens * k }, (_, i) => Math.cos(i * 3.7) * (1 + (i % 5)));
        const run = (rows: Float32Array): Promise<Float32Array> =>
          addon.runLinear({
            ...scheme.native,
            memberRows: [n],
            k,
            weight: packed.codes,
            scales: packed.scales,
            activation: scheme.activation === null ? 'none' : 'e4m3_group128',
            compute: 'float32',
            isa,
            threads: 2,
            x: rows,
            tokens: rows.length / k,
          });
        const y = await run(x);
        const expected = multiply(scheme, weight.tensor, oracle, roundActivations(scheme, x, k));
        for (const [i, value] of y.entries()) {
          const { sum, magnitude } = expected[i] as Product;
          expect(Math.abs(value - sum), `[${n}, ${k}] at ${i}`).toBeLessThanOrEqual(k * 2 ** -23 * magnitude);
        }
        for (let t = 0; t < tokens; t++) {
          expect(await run(x.slice(t * k, (t + 1) * k))).toEqual(y.slice(t * n, (t + 1) * n));
        }
      }
    });
  },
);

interface Product {
  readonly sum: number;
  /** Sum of the terms' magnitudes: what a rounding error is relative to. */
  readonly magnitude: number;
}

function roundActivations(scheme: QuantScheme, x: Float32Array, k: number): Float32Array {
  if (scheme.activation === null) return x;
  const tensor = { name: 'x', rows: x.length / k, k, values: x };
  const { codes, scales } = quantizeActivationE4m3(tensor);
  const groups = Math.ceil(k / 128);
  return Float32Array.from(x, (_, i) => {
    const row = Math.floor(i / k);
    return decodeE4m3(codes[i] ?? 0) * (scales[row * groups + Math.floor((i % k) / 128)] ?? NaN);
  });
}

/** OCP e4m3fn, finite codes. */
function decodeE4m3(code: number): number {
  const exponent = (code >> 3) & 15;
  const mantissa = code & 7;
  const magnitude = exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return code & 0x80 ? -magnitude : magnitude;
}

/** x W^T in double precision, of the dequantized weight. */
function multiply(
  scheme: QuantScheme,
  tensor: WeightTensor,
  parts: QuantizedParts,
  x: Float32Array,
): readonly Product[] {
  const [n, k] = tensor.shape as [number, number];
  const w = scheme.dequantize(tensor, parts);
  const products: Product[] = [];
  for (let t = 0; t < x.length / k; t++) {
    for (let row = 0; row < n; row++) {
      let sum = 0;
      let magnitude = 0;
      for (let i = 0; i < k; i++) {
        const term = (x[t * k + i] as number) * (w[row * k + i] as number);
        sum += term;
        magnitude += Math.abs(term);
      }
      products.push({ sum, magnitude });
    }
  }
  return products;
}
