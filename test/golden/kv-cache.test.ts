import { describe, expect, it } from 'vitest';
import { figure, measureDemo } from '../helpers/demo-model.js';

const NUM_WINDOWS = 16;

/**
 * Nats that caching keys and values in a type may cost, and what it costs at least: a cache that were not quantized
 * would cost nothing. Over the whole text they cost 1.0e-6, 9.1e-6, 1.8e-4 and 3.3e-3.
 */
const KL_BOUNDS = {
  bfloat16: [1e-7, 3e-6],
  int8: [1e-6, 2e-5],
  fp8: [3e-5, 4e-4],
  int4: [5e-4, 7e-3],
} as const;
/** Shares by which perplexity may differ. */
const PERPLEXITY_BOUNDS = { bfloat16: 0.0005, int8: 0.001, fp8: 0.002, int4: 0.01 } as const;

describe('the demo model over a quantized KV cache', () => {
  it('keeps perplexity, and diverges by what its type costs', async () => {
    const types = ['bfloat16', 'int8', 'fp8', 'int4'] as const;
    const { scenarios } = await measureDemo({
      kvTypes: ['float32', ...types],
      windows: { window: 256, stride: 256, maxWindows: NUM_WINDOWS },
    });
    const [exact, ...results] = scenarios;
    for (const [i, type] of types.entries()) {
      const [least, most] = KL_BOUNDS[type];
      const kl = figure(results[i], 'kl');
      expect(kl, type).toBeGreaterThan(least);
      expect(kl, type).toBeLessThan(most);
      const perplexity = figure(results[i], 'perplexity') / figure(exact, 'perplexity');
      expect(Math.abs(perplexity - 1), type).toBeLessThan(PERPLEXITY_BOUNDS[type]);
    }
  });
});
