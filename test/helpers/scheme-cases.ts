import { decodeBf16 } from '../../src/quant/numerics/bf16.js';
import { decodeE8m0 } from '../../src/quant/numerics/e8m0.js';
import { decodeE4m3 } from '../../src/quant/numerics/fp8.js';
import { SCHEMES } from '../../src/quant/registry.js';
import type { NativeFormat, QuantizedParts, QuantScheme } from '../../src/quant/scheme.js';
import type { Matrix } from './native-weights.js';

/** float32 roundings of scale, quotient and product, as a share of the value. */
export const FLOAT32_SLACK = 4 * 2 ** -24;

export type QuantizingScheme = QuantScheme & { readonly native: NativeFormat };

/** Every scheme but `none`. */
export const QUANTIZING = SCHEMES.filter((scheme): scheme is QuantizingScheme => scheme.native !== null);

/** Deterministic values in (-1, 1), no two tiles alike. */
export function noise(at: number): number {
  return Math.sin(at * 12.9898) * (1 + (at % 7)) * 0.1;
}

/** The oracle's parts of a whole matrix. */
export function quantize(
  scheme: QuantScheme,
  { tensor, bytes }: Matrix,
  tensorScale?: number,
): QuantizedParts {
  return scheme.quantize(tensor, {
    firstRow: 0,
    bytes,
    ...(tensorScale === undefined ? {} : { tensorScale }),
  });
}

/** The product of all scales that element `at` of a matrix [n, k] has, in canonical order. */
export function scaleAt(scheme: QuantScheme, parts: QuantizedParts, k: number, at: number): number {
  return floatScale(scheme, parts, k, at) * blockScale(scheme, parts, k, at);
}

function floatScale(scheme: QuantScheme, { scales }: QuantizedParts, k: number, at: number): number {
  const { groupN = -1, groupK = 0 } = scheme.native ?? {};
  if (groupN === -1) return 1;
  const columns = groupK === 0 ? k : groupK;
  const tileRow = groupN === 0 ? 0 : Math.floor(Math.floor(at / k) / groupN);
  return scales[tileRow * Math.ceil(k / columns) + Math.floor((at % k) / columns)] ?? NaN;
}

function blockScale(scheme: QuantScheme, { blockScales }: QuantizedParts, k: number, at: number): number {
  const block = scheme.native?.block;
  if (block === undefined || blockScales === undefined) return 1;
  const index = Math.floor(at / k) * Math.ceil(k / block.columns) + Math.floor((at % k) / block.columns);
  const byte = blockScales[index] ?? NaN;
  if (block.type === 'e4m3') return decodeE4m3(byte);
  if (block.type === 'e8m0') return decodeE8m0(byte);
  return decodeBf16((blockScales[2 * index] ?? NaN) | ((blockScales[2 * index + 1] ?? NaN) << 8));
}

/** Undefined when every restored value is as near as the scheme promises, else which is not. */
export function findError(scheme: QuantScheme, input: Matrix): string | undefined {
  const parts = quantize(scheme, input);
  const k = input.tensor.shape[1] as number;
  const { relative, ofScale, ofTensorScale = 0 } = scheme.weight.maxError;
  const restored = scheme.dequantize(input.tensor, parts);
  if (restored.length !== input.values.length) return `${restored.length} values`;
  for (const [at, value] of input.values.entries()) {
    // A searched scale may be negative.
    const scale = Math.abs(scaleAt(scheme, parts, k, at));
    const largest = Math.abs(value) + scale * 448;
    const bound = Math.max(
      relative * Math.abs(value),
      ofScale * scale,
      ofTensorScale * floatScale(scheme, parts, k, at),
    );
    const found = restored[at] as number;
    if (!(Math.abs(found - value) <= bound + FLOAT32_SLACK * largest)) {
      return `${value} became ${found} at ${at}, scale ${scale}`;
    }
  }
  return undefined;
}
