import { describe, expect, it } from 'vitest';
import { activationRuleOf } from '../../src/quant/activation.js';
import { packPanels } from '../../src/quant/packed-layout.js';
import { SCHEMES } from '../../src/quant/registry.js';
import type { NativeFormat, QuantizedParts, QuantScheme, WeightTensor } from '../../src/quant/scheme.js';
import { availableIsas, openAddon } from '../helpers/addon.js';
import {
  findDifference,
  findPartDifference,
  makeMatrix,
  quantizeNatively,
  roundActivations,
} from '../helpers/native-weights.js';
import { bitsOf } from '../unit/quant/golden-vectors.js';

const { addon } = openAddon();
const isas = availableIsas();
const quantized = SCHEMES.filter(
  (scheme): scheme is QuantScheme & { native: NativeFormat } => scheme.native !== null,
);

const TOKENS = 5;
const SHAPES = [
  [1, 1],
  [3, 17],
  [16, 64],
  [31, 129],
  [130, 100],
  [257, 300],
] as const;

/** Deterministic, with magnitudes from 1e-6 to 10 and exact zeros. */
function noise(i: number): number {
  return i % 11 === 3 ? 0 : Math.sin(i * 12.9898) * 10 ** (-6 + (i % 8));
}

describe.each(quantized.map((scheme) => [scheme.name, scheme] as const))(
  '%s in native code',
  (_name, scheme) => {
    it.each(SHAPES)(
      'quantizes [%i, %i] to the oracle’s bytes, packed or not, on any number of threads',
      async (n, k) => {
        const weight = makeMatrix([n, k], noise);
        const oracle = scheme.quantize(weight.tensor, { firstRow: 0, bytes: weight.bytes });
        const panels = packPanels({ n, k, native: scheme.native }, oracle);
        for (const isa of isas) {
          for (const options of [1, 3].flatMap((threads) =>
            [false, true].map((packed) => ({ isa, threads, packed })),
          )) {
            const { parts, result } = await quantizeNatively(weight, scheme.native, options);
            expect(result).toEqual({ status: 'ok' });
            const expected = options.packed ? panels : oracle;
            expect(findPartDifference(parts, expected), JSON.stringify(options)).toBeUndefined();
          }
        }
      },
    );

    it.each(isas)('%s names the first weight that is not finite', async (isa) => {
      const weight = makeMatrix([200, 70], (i) =>
        i === 137 * 70 + 5 || i === 150 * 70 ? Infinity : noise(i),
      );
      const { result } = await quantizeNatively(weight, scheme.native, { packed: true, threads: 2, isa });
      expect(result).toEqual({ status: 'non_finite', row: 137, column: 5 });
    });

    it.each(SHAPES)(
      'multiplies [%i, %i] as the oracle says, and every token alone as in a batch',
      async (n, k) => {
        const weight = makeMatrix([n, k], (i) => Math.sin(i * 7.13) * 0.5);
        const oracle = scheme.quantize(weight.tensor, { firstRow: 0, bytes: weight.bytes });
        const packed = packPanels({ n, k, native: scheme.native }, oracle);
        const x = Float32Array.from({ length: TOKENS * k }, (_, i) => Math.cos(i * 3.7) * (1 + (i % 5)));
        const expected = multiply(scheme, weight.tensor, oracle, roundActivations(scheme, x, k));
        for (const isa of isas) {
          const run = (rows: Float32Array): Promise<Float32Array> =>
            addon.runLinear({
              ...scheme.native,
              memberRows: [n],
              k,
              weight: packed.codes,
              ...(packed.scales.length === 0 ? {} : { scales: packed.scales }),
              ...(packed.blockScales === undefined ? {} : { blockScales: packed.blockScales }),
              activation: activationRuleOf(scheme.activation),
              compute: 'float32',
              isa,
              threads: 2,
              x: rows,
              tokens: rows.length / k,
            });
          const y = await run(x);
          expect(y).toHaveLength(expected.length);
          const wrong = expected.flatMap(({ sum, magnitude }, i) =>
            Math.abs((y[i] ?? NaN) - sum) <= k * 2 ** -23 * magnitude ? [] : [{ i, y: y[i], sum }],
          );
          expect(wrong, isa).toEqual([]);
          for (let t = 0; t < TOKENS; t++) {
            const alone = await run(x.slice(t * k, (t + 1) * k));
            const difference = findDifference(bitsOf(alone), bitsOf(y.slice(t * n, (t + 1) * n)));
            expect(difference, `${isa} token ${t}`).toBeUndefined();
          }
        }
      },
    );
  },
);

interface Product {
  readonly sum: number;
  /** Sum of the terms' magnitudes: what a rounding error is relative to. */
  readonly magnitude: number;
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
