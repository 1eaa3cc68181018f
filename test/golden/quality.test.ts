import { describe, expect, it } from 'vitest';
import { loadModel, type LoadedModel } from '../../src/load/load-model.js';
import {
  addQuality,
  DEMO,
  measureQuality,
  QUALITY_MEMORY,
  reference,
  type Quality,
} from '../helpers/demo-quality.js';
import { argMax, blockRange, runStep } from '../helpers/fixture-model.js';

/** Bounds against the reference's own figures. */
const PERPLEXITY_BOUND = 0.002;
const KL_BOUND = 0.2;
/** Nats that rounding the inputs of linear layers to bfloat16 may cost by itself; wint8 costs 2e-5. */
const BFLOAT16_KL_BOUND = 5e-6;

/** What bfloat16 is held to float32 on: enough that rounding inputs shows, of 221. */
const SAMPLE_WINDOWS = 32;

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
  ['w8a8', 'w8a8_channel_token'],
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
    const [exact, rounded] = await Promise.all(
      (['float32', 'bfloat16'] as const).map((dtype) =>
        Promise.all(SCHEMES.map(([scheme]) => loadDemo(scheme, dtype))),
      ),
    );
    const models = [...(exact ?? []), ...(rounded ?? [])];
    const sample = await measureQuality(models, SAMPLE_WINDOWS);
    const rest = await measureQuality(models.slice(0, SCHEMES.length), undefined, SAMPLE_WINDOWS);
    await Promise.all(models.map((model) => model.runner.close()));
    for (const [i, [scheme, key]] of SCHEMES.entries()) {
      const part = sample[i] as Quality;
      const whole = addQuality(part, rest[i] as Quality);
      const { perplexity, kl_nats: kl } = reference.schemes[key] ?? { perplexity: NaN, kl_nats: NaN };
      expectQuality(`${scheme} float32`, whole, { nll: Math.log(perplexity), kl });
      // The same scheme in float32 over the same windows stands for the reference.
      const own = { nll: part.nll / part.scored, kl: part.kl / part.scored };
      expectQuality(`${scheme} bfloat16`, sample[SCHEMES.length + i] as Quality, own);
    }
  });
});

/** Compares means over tokens, in nats. */
function expectQuality(
  label: string,
  { nll, kl, scored }: Quality,
  expected: { readonly nll: number; readonly kl: number },
): void {
  const perplexity = Math.exp(nll / scored - expected.nll);
  expect(Math.abs(perplexity - 1), `${label} perplexity`).toBeLessThanOrEqual(PERPLEXITY_BOUND);
  if (expected.kl === 0) {
    expect(kl / scored, `${label} KL`).toBeLessThanOrEqual(BFLOAT16_KL_BOUND);
    return;
  }
  const divergence = kl / scored / expected.kl;
  expect(Math.abs(divergence - 1), `${label} KL`).toBeLessThanOrEqual(KL_BOUND);
}
