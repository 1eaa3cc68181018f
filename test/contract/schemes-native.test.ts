import { describe, expect, it } from 'vitest';
import { widenFloats, type FloatType } from '../../src/quant/numerics/floats.js';
import { packPanels } from '../../src/quant/packed-layout.js';
import type { IsaName } from '../../src/runtime/addon.js';
import { availableIsas } from '../helpers/addon.js';
import { findPartDifference, makeMatrix, quantizeNatively, type Matrix } from '../helpers/native-weights.js';
import { fc } from '../helpers/properties.js';
import { noise, quantize, QUANTIZING, type QuantizingScheme } from '../helpers/scheme-cases.js';
import { bf16Tensor, goldenCases, goldenTensor, readGolden } from '../unit/quant/golden-vectors.js';

const ISAS = availableIsas();
const SMALLEST_SUBNORMAL = 2 ** -149;
const LARGEST_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;

/** Beyond what the golden inputs have: other types, and numbers only they have. */
const EDGES: readonly Matrix[] = [
  makeMatrix([3, 70], () => SMALLEST_SUBNORMAL, 'float32'),
  makeMatrix([3, 70], (at) => (at % 5) * SMALLEST_SUBNORMAL, 'float32'),
  makeMatrix([2, 130], (at) => (at % 2 === 0 ? 1 : -1) * LARGEST_FLOAT32 * 2 ** -(at % 3), 'float32'),
  makeMatrix([2, 130], (at) => (at % 2 === 0 ? 1 : -1) * LARGEST_FLOAT32, 'float32'),
  makeMatrix([2, 130], (at) => noise(at) * 2 ** (240 * Math.sin(at) - 115), 'float32'),
  makeMatrix([5, 65], (at) => (at % 3 === 0 ? -0 : noise(at)), 'float32'),
  makeMatrix([5, 65], () => -0, 'float32'),
  makeMatrix([7, 33], (at) => noise(at) * 2 ** -(at % 26), 'float16'),
  makeMatrix([4, 40], (at) => (at % 2 === 0 ? 65504 : -65504), 'float16'),
];

const inputs = readGolden('inputs');
const refused = readGolden('refuse');

function goldenMatrix(file: typeof inputs, name: string): Matrix {
  const { shape, bytes } = goldenTensor(file, name);
  return { tensor: bf16Tensor('the.weight', shape), bytes, values: widenFloats(bytes, 'bfloat16') };
}

/** What the native bytes first differ in from those of the oracle, in canonical order and in panels. */
async function differences(
  scheme: QuantizingScheme,
  matrix: Matrix,
  options: { readonly threads: number; readonly isa?: IsaName },
): Promise<readonly string[]> {
  const { native } = scheme;
  const [n, k] = matrix.tensor.shape as [number, number];
  const plain = quantize(scheme, matrix);
  const panels = packPanels({ n, k, native }, plain);
  const found: string[] = [];
  for (const packed of [false, true]) {
    const { parts, result } = await quantizeNatively(matrix, native, { ...options, packed });
    const difference =
      result.status === 'ok' ? findPartDifference(parts, packed ? panels : plain) : result.status;
    if (difference !== undefined) found.push(`[${n}, ${k}] ${packed ? 'packed ' : ''}${difference}`);
  }
  return found;
}

describe.each(QUANTIZING.map((scheme) => [scheme.name, scheme] as const))('%s', (_, scheme) => {
  it.each(ISAS)('of the golden inputs is the oracle’s on %s', async (isa) => {
    for (const label of goldenCases(inputs, 'W.')) {
      const matrix = goldenMatrix(inputs, `W.${label}`);
      expect(await differences(scheme, matrix, { threads: 2, isa }), label).toEqual([]);
    }
  });

  it.each(ISAS)('of numbers at the ends of their types is the oracle’s on %s', async (isa) => {
    for (const [index, matrix] of EDGES.entries()) {
      expect(await differences(scheme, matrix, { threads: 1, isa }), `edge ${index}`).toEqual([]);
    }
  });

  it('is the oracle’s whatever the shape, type and scale', async () => {
    const cases = fc.record({
      n: fc.integer({ min: 1, max: 40 }),
      k: fc.integer({ min: 1, max: 200 }),
      exponent: fc.integer({ min: -100, max: 100 }),
      dataType: fc.constantFrom<FloatType>('float32', 'bfloat16'),
      threads: fc.integer({ min: 1, max: 4 }),
    });
    const property = fc.asyncProperty(cases, async ({ n, k, exponent, dataType, threads }) => {
      const matrix = makeMatrix([n, k], (at) => noise(at + n) * 2 ** (exponent + (at % 9)), dataType);
      expect(await differences(scheme, matrix, { threads })).toEqual([]);
    });
    await fc.assert(property, { numRuns: 30, interruptAfterTimeLimit: 2000 });
  });

  it('is the same in one chunk and in several, on any number of threads', async () => {
    // Half a mebibyte is what a thread takes at once: 128 rows, and 12.
    const matrix = makeMatrix([140, 1000], (at) => noise(at) * (1 + (at % 97)), 'float32');
    for (const threads of [1, 2, 5]) expect(await differences(scheme, matrix, { threads })).toEqual([]);
  });

  it.each(goldenCases(refused, 'W.'))('refuses %s where the oracle does', async (label) => {
    const matrix = goldenMatrix(refused, `W.${label}`);
    const at = matrix.values.findIndex((value) => !Number.isFinite(value));
    const k = matrix.tensor.shape[1] as number;
    const { result } = await quantizeNatively(matrix, scheme.native, { packed: true, threads: 2 });
    expect(result).toEqual({ status: 'non_finite', row: Math.floor(at / k), column: at % k });
  });
});
