/** Stored formats of one code a byte and of four-bit floats, as stored-formats.ts. */
import { floats, integers, randomScales } from './stored-formats.js';
import type { FloatDtype, Random, StoredCase, StoredSample } from './stored-formats.js';

/** Finite e4m3 codes and the values they stand for. */
function drawE4m3(
  count: number,
  random: Random,
): { readonly codes: Uint8Array; readonly values: Float64Array } {
  const codes = Uint8Array.from({ length: count }, () => {
    const code = Math.floor(random() * 256);
    return (code & 0x7f) === 0x7f ? 0 : code;
  });
  return { codes, values: Float64Array.from(codes, valueOfE4m3) };
}

function valueOfE4m3(code: number): number {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const fraction = code & 7;
  return exponent === 0 ? sign * fraction * 2 ** -9 : sign * (8 + fraction) * 2 ** (exponent - 10);
}

interface BytesOptions {
  readonly element: 'F8_E4M3' | 'I8';
  readonly geometry: 'tensor' | 'channel' | 'tiles';
  readonly scaleName?: string;
  readonly scaleShape?: (n: number) => readonly number[];
  readonly dtype?: FloatDtype;
  /** Name of the tensor of the static scale of inputs. */
  readonly input?: string;
}

export const INPUT_SCALE = 0.0078125;

/** One code a byte. */
function writeBytes(n: number, k: number, options: BytesOptions, random: Random): StoredSample {
  const { element, geometry, scaleName = 'weight_scale', dtype = 'BF16', input } = options;
  const drawn =
    element === 'F8_E4M3'
      ? drawE4m3(n * k, random)
      : (({ length }) => {
          const values = integers(length, [-128, 127], random);
          return { codes: new Uint8Array(Int8Array.from(values).buffer), values };
        })({ length: n * k });
  const across = geometry === 'tiles' ? Math.ceil(k / 128) : 1;
  const down = geometry === 'tiles' ? Math.ceil(n / 128) : geometry === 'channel' ? n : 1;
  const scales = randomScales(down * across, random);
  const shape = options.scaleShape?.(n) ?? (geometry === 'tensor' ? [1] : [down, across]);
  const scaleAt = (row: number, column: number): number =>
    geometry === 'tiles'
      ? scales[Math.floor(row / 128) * across + Math.floor(column / 128)]!
      : scales[geometry === 'channel' ? row : 0]!;
  return {
    weights: Float32Array.from(
      { length: n * k },
      (_, at) => drawn.values[at]! * scaleAt(Math.floor(at / k), at % k),
    ),
    tensors: {
      weight: { dtype: element, shape: [n, k], data: drawn.codes },
      [scaleName]: floats(scales, dtype, shape),
      ...(input === undefined ? {} : { [input]: floats(Float32Array.of(INPUT_SCALE), 'F32', []) }),
    },
  };
}

export function bytesCase(
  name: string,
  [scheme, activation]: readonly [string, string],
  config: StoredCase['config'],
  options: BytesOptions & { readonly file?: string },
): StoredCase {
  const { file } = options;
  return {
    name,
    scheme,
    activation,
    config,
    unit: [1, 1],
    ...(file === undefined ? {} : { file }),
    write: (n, k, random) => writeBytes(n, k, options, random),
  };
}

const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

export function nvfp4Case(
  name: string,
  config: StoredCase['config'],
  layout: {
    readonly codes: string;
    readonly tensorScale: string;
    readonly reciprocal: boolean;
    readonly file?: string;
  },
): StoredCase {
  return {
    name,
    config,
    scheme: 'nvfp4',
    activation: 'none',
    unit: [1, 16],
    ...(layout.file === undefined ? {} : { file: layout.file }),
    write(n, k, random) {
      const codes = integers(n * k, [0, 15], random);
      // Positive block scales.
      const blocks = Uint8Array.from({ length: (n * k) / 16 }, () => 8 + Math.floor(random() * 0x70));
      const scale = 2 ** -11;
      const packed = new Uint8Array((n * k) / 2);
      codes.forEach((code, at) => (packed[at >> 1] = packed[at >> 1]! | (code << (4 * (at & 1)))));
      const valueAt = (at: number): number => (codes[at]! & 8 ? -1 : 1) * E2M1[codes[at]! & 7]!;
      return {
        weights: Float32Array.from(
          { length: n * k },
          (_, at) => valueAt(at) * valueOfE4m3(blocks[at >> 4]!) * scale,
        ),
        tensors: {
          [layout.codes]: { dtype: 'U8', shape: [n, k / 2], data: packed },
          weight_scale: { dtype: 'F8_E4M3', shape: [n, k / 16], data: blocks },
          [layout.tensorScale]: floats(Float32Array.of(layout.reciprocal ? 1 / scale : scale), 'F32', [1]),
        },
      };
    },
  };
}
