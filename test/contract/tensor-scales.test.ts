import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeE4m3 } from '../../src/quant/numerics/fp8.js';
import { widenFloats, type FloatType } from '../../src/quant/numerics/floats.js';
import { packPanels } from '../../src/quant/packed-layout.js';
import { resolveScheme } from '../../src/quant/registry.js';
import type { QuantizedParts } from '../../src/quant/scheme.js';
import type { MagnitudeResult } from '../../src/runtime/addon.js';
import { availableIsas, openAddon } from '../helpers/addon.js';
import { findPartDifference, makeMatrix, quantizeNatively, type Matrix } from '../helpers/native-weights.js';
import { findError, noise, quantize, type QuantizingScheme } from '../helpers/scheme-cases.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { bf16Tensor, goldenFloats, goldenTensor, readGolden } from '../unit/quant/golden-vectors.js';

// Tensor scales that come from outside: test/golden/nvfp4-expected.py made the vectors.

const { addon } = openAddon();
const ISAS = availableIsas();
const nvfp4 = resolveScheme('nvfp4') as QuantizingScheme;
const fp8 = resolveScheme('fp8_per_tensor') as QuantizingScheme;
const inputs = readGolden('inputs');
const given = readGolden('nvfp4_given');
const SUFFIX = '.global_scale';
const LABELS = [...given.keys()]
  .filter((key) => key.endsWith(SUFFIX))
  .map((key) => key.slice(0, -SUFFIX.length));

/** No scales: 1e-60 is 0 in float32, and 1e60 infinite. */
const NO_SCALES = [0, -0, -1, NaN, Infinity, -Infinity, 1e-60, 1e60];

interface GivenCase {
  readonly matrix: Matrix;
  readonly tensorScale: number;
  readonly expected: QuantizedParts;
}

function readCase(label: string): GivenCase {
  const { shape, bytes } = goldenTensor(inputs, `W.${label.split('.')[0]}`);
  const scales = goldenFloats(given, label + SUFFIX);
  return {
    matrix: { tensor: bf16Tensor('the.weight', shape), bytes, values: widenFloats(bytes, 'bfloat16') },
    tensorScale: scales[0] as number,
    expected: {
      codes: goldenTensor(given, `${label}.packed`).bytes,
      blockScales: goldenTensor(given, `${label}.scale`).bytes,
      scales,
    },
  };
}

describe('nvfp4 under a given tensor scale', () => {
  it('has its vectors', () => {
    expect(LABELS.length).toBeGreaterThan(50);
    for (const name of ['own', 'near', 'far', 'beyond', 'smaller', 'least', 'most']) {
      expect(LABELS).toContain(`normal_16x16.${name}`);
    }
  });

  it('meets them bit for bit', () => {
    for (const label of LABELS) {
      const { matrix, tensorScale, expected } = readCase(label);
      expect(findPartDifference(quantize(nvfp4, matrix, tensorScale), expected), label).toBeUndefined();
    }
  });

  it.each(ISAS)('meets them in native code on %s', async (isa) => {
    for (const label of LABELS) {
      const { matrix, tensorScale, expected } = readCase(label);
      const [n, k] = matrix.tensor.shape as [number, number];
      const panels = packPanels({ n, k, native: nvfp4.native }, expected);
      for (const packed of [false, true]) {
        const options = { packed, threads: 2, isa, tensorScale };
        const { parts, result } = await quantizeNatively(matrix, nvfp4.native, options);
        expect(result, label).toEqual({ status: 'ok' });
        expect(findPartDifference(parts, packed ? panels : expected), label).toBeUndefined();
      }
    }
  });

  it('keeps the promised error under a scale that is larger than its own', () => {
    const matrix = makeMatrix([9, 100], (at) => noise(at) * 2 ** -(at % 5), 'float32');
    const own = quantize(nvfp4, matrix).scales[0] as number;
    for (const factor of [1.01, 3, 100, 3e4]) {
      const scheme = {
        ...nvfp4,
        quantize: (...[tensor, chunk]: Parameters<typeof nvfp4.quantize>) =>
          nvfp4.quantize(tensor, { ...chunk, tensorScale: Math.fround(own * factor) }),
      };
      expect(findError(scheme, matrix), `${factor}`).toBeUndefined();
    }
  });

  it.each(NO_SCALES)('refuses %f', async (tensorScale) => {
    const matrix = makeMatrix([3, 20], noise);
    expect(() => quantize(nvfp4, matrix, tensorScale)).toThrow(/no scale of a tensor/);
    const options = { packed: true, threads: 1, tensorScale };
    await expect(quantizeNatively(matrix, nvfp4.native, options)).rejects.toThrow(/finite and above 0/);
  });

  it('is refused where a row or a block has its own scale', async () => {
    const matrix = makeMatrix([3, 20], noise);
    for (const name of ['wint8', 'mxfp4', 'block_wise_fp8']) {
      const { native } = resolveScheme(name) as QuantizingScheme;
      const options = { packed: true, threads: 1, tensorScale: 1 };
      await expect(quantizeNatively(matrix, native, options)).rejects.toThrow(/is for groupN 0/);
    }
  });

  it('refuses a NaN of the matrix all the same', async () => {
    const matrix = makeMatrix([20, 40], (at) => (at === 17 * 40 + 33 ? NaN : 1));
    const { result } = await quantizeNatively(matrix, nvfp4.native, {
      packed: true,
      threads: 2,
      tensorScale: 1,
    });
    expect(result).toEqual({ status: 'non_finite', row: 17, column: 33 });
  });
});

it.each(ISAS)('e4m3 codes are those of a given tensor scale on %s', async (isa) => {
  const matrix = makeMatrix([21, 70], noise, 'float32');
  for (const tensorScale of [0.001, 0.125, 3]) {
    const options = { packed: false, threads: 2, isa, tensorScale };
    const { parts } = await quantizeNatively(matrix, fp8.native, options);
    const scale = Math.fround(tensorScale);
    const codes = Uint8Array.from(matrix.values, (value) => encodeE4m3(Math.fround(value / scale)));
    expect(findPartDifference(parts, { codes, scales: Float32Array.of(scale) })).toBeUndefined();
  }
});

describe('measureMagnitude', () => {
  const measure = (
    { tensor, bytes }: Matrix,
    more: { readonly threads?: number; readonly isa?: (typeof ISAS)[number] } = {},
  ): Promise<MagnitudeResult> => {
    const [n = 0, k = 0] = tensor.shape;
    const dataType = tensor.dataType as FloatType;
    return addon.measureMagnitude({ source: { bytes }, dataType, n, k, threads: 2, ...more });
  };

  it.each(ISAS)('finds the largest of any type on %s, wherever it is', async (isa) => {
    for (const dataType of ['float32', 'bfloat16', 'float16'] as const) {
      for (const place of [0, 140 * 1000 - 1]) {
        const matrix = makeMatrix([140, 1000], (at) => (at === place ? -7.25 : noise(at)), dataType);
        for (const threads of [1, 3]) {
          expect(await measure(matrix, { isa, threads })).toEqual({ status: 'ok', largest: 7.25 });
        }
      }
    }
  });

  it('knows zeros, subnormal numbers and the largest one', async () => {
    const largest = (2 - 2 ** -23) * 2 ** 127;
    for (const value of [0, -0, 2 ** -149, -(2 ** -149), largest, -largest]) {
      const found = await measure(makeMatrix([3, 17], () => value, 'float32'));
      expect(found).toEqual({ status: 'ok', largest: Math.abs(value) });
    }
  });

  it.each([NaN, Infinity, -Infinity])('says where a %f is', async (value) => {
    const matrix = makeMatrix([300, 900], (at) => (at === 299 * 900 + 899 ? value : 1));
    expect(await measure(matrix)).toEqual({ status: 'non_finite', row: 299, column: 899 });
  });

  it('reads a file, and says when it ends early or cannot be read', async () => {
    const { bytes } = makeMatrix([40, 50], (at) => at);
    const file = path.join(await createTempDir(), 'weights');
    writeFileSync(file, Buffer.concat([Buffer.alloc(6), bytes]));
    const handle = await open(file);
    const job = { dataType: 'bfloat16', n: 40, k: 50, threads: 2 } as const;
    try {
      const measureAt = (offset: number): Promise<MagnitudeResult> =>
        addon.measureMagnitude({ ...job, source: { fd: handle.fd, offset } });
      expect(await measureAt(6)).toEqual({ status: 'ok', largest: 2000 });
      expect(await measureAt(8)).toEqual({ status: 'short_read' });
    } finally {
      await handle.close();
    }
    expect(await addon.measureMagnitude({ ...job, source: { fd: -1, offset: 0 } })).toMatchObject({
      status: 'io_error',
    });
  });

  it('refuses sizes that do not fit', () => {
    const job = { dataType: 'float32', threads: 1, source: { bytes: new Uint8Array(64) } } as const;
    expect(() => addon.measureMagnitude({ ...job, n: 3, k: 5 })).toThrow(/n \* k elements/);
    expect(() => addon.measureMagnitude({ ...job, n: 0, k: 5 })).toThrow(/out of range/);
    expect(() => addon.measureMagnitude({ ...job, n: 4, k: 4, threads: 0 })).toThrow(/threads/);
  });
});
