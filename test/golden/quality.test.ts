import { describe, expect, it } from 'vitest';
import { loadModel, type LoadedModel } from '../../src/load/load-model.js';
import { DEMO, measureQuality, QUALITY_MEMORY, reference, type Quality } from '../helpers/demo-quality.js';
import { argMax, blockRange, runStep } from '../helpers/fixture-model.js';

/** Bounds against the reference's own figures. */
const PERPLEXITY_BOUND = 0.002;
const KL_BOUND = 0.2;
/** Nats that rounding the inputs of linear layers to bfloat16 may cost by itself; wint8 costs 2e-5. */
const BFLOAT16_KL_BOUND = 5e-6;

function loadDemo(quantization: string, dtype: 'float32' | 'bfloat16'): Promise<LoadedModel> {
  return loadModel(
    {
      model: DEMO,
      quantization,
      dtype,
      kvCacheDtype: 'auto',
      threads: 2,
      memory: QUALITY_MEMORY,
    },
    { phase: () => undefined, warn: () => undefined },
  );
}

const SCHEMES = [
  ['none', 'bf16'],
  ['wint8', 'wint8_channel'],
  ['wint4', 'wint4_channel'],
  ['wint4:g128', 'wint4_g128'],
  ['block_wise_fp8', 'fp8_block128'],
] as const;

describe('the demo model has the quality of the reference', () => {
  it('continues every probe with the reference ids, unquantized', async () => {
    const model = await loadDemo('none', 'float32');
    const blocks = blockRange(0, 32);
    for (const probe of reference.probes) {
      const ids = probe.input_ids;
      let [row] = await runStep(model, [{ ids, start: 0, blocks, rows: [ids.length - 1] }]);
      const greedy: number[] = [];
      while (greedy.length < probe.greedy_ids.length) {
        const next = argMax(row ?? new Float32Array());
        greedy.push(next);
        [row] = await runStep(model, [
          { ids: [next], start: ids.length + greedy.length - 1, blocks, rows: [0] },
        ]);
      }
      expect(greedy, probe.prompt).toEqual(probe.greedy_ids);
    }
    await model.runner.close();
  });

  it('perplexity and KL divergence of every scheme', { timeout: 600_000 }, async () => {
    const runs = (['float32', 'bfloat16'] as const).flatMap((dtype) =>
      SCHEMES.map(([scheme, key]) => ({ scheme, key, dtype })),
    );
    const models = await Promise.all(runs.map(({ scheme, dtype }) => loadDemo(scheme, dtype)));
    const results = await measureQuality(models);
    await Promise.all(models.map((model) => model.runner.close()));
    for (const [i, { scheme, key, dtype }] of runs.entries()) {
      const { nll, kl, scored } = results[i] as Quality;
      const expected = reference.schemes[key];
      const perplexity = Math.exp(nll / scored) / (expected?.perplexity ?? NaN);
      expect(Math.abs(perplexity - 1), `${scheme} ${dtype} perplexity`).toBeLessThanOrEqual(PERPLEXITY_BOUND);
      if (scheme === 'none') {
        expect(kl / scored, `${dtype} KL`).toBeLessThanOrEqual(BFLOAT16_KL_BOUND);
        continue;
      }
      const divergence = kl / scored / (expected?.kl_nats ?? NaN);
      expect(Math.abs(divergence - 1), `${scheme} ${dtype} KL`).toBeLessThanOrEqual(KL_BOUND);
    }
  });
});
