import { describe, expect, it } from 'vitest';
import type { Scenario } from '../../src/bench/report.js';
import { DEMO, figure, measureDemo, reference } from '../helpers/demo-model.js';
import { argMax, blockRange, loadFolder, runStep } from '../helpers/fixture-model.js';

/** Bounds against the reference's own figures. */
const PERPLEXITY_BOUND = 0.002;
const KL_BOUND = 0.2;
/** Nats that rounding the inputs of linear layers to bfloat16 may cost by itself; wint8 costs 2e-5. */
const BFLOAT16_KL_BOUND = 5e-6;

/** What bfloat16 is held to float32 on: enough that rounding inputs shows, of 221. */
const SAMPLE_WINDOWS = 32;

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
    const model = await loadFolder(DEMO);
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

  it('perplexity and KL divergence of every scheme', async () => {
    const schemes = SCHEMES.map(([quantization]) => ({ quantization }));
    const whole = await measureDemo({ schemes });
    const { windows, scored_tokens: tokens } = reference.perplexity_definition;
    for (const [i, [scheme, key]] of SCHEMES.entries()) {
      const { perplexity, kl_nats: kl } = reference.schemes[key] ?? { perplexity: NaN, kl_nats: NaN };
      const measured = whole.scenarios[i];
      expect(measured?.parameters).toMatchObject({ windows, scored_tokens: tokens });
      expectQuality(`${scheme} float32`, measured, { perplexity, kl });
    }
    // The same scheme in float32 over the same windows stands for the reference.
    const sample = { schemes, windows: { window: 256, stride: 256, maxWindows: SAMPLE_WINDOWS } };
    const exact = await measureDemo(sample);
    const rounded = await measureDemo({ ...sample, dtype: 'bfloat16', kvTypes: ['bfloat16'] });
    for (const [i, [scheme]] of SCHEMES.entries()) {
      const own = {
        perplexity: figure(exact.scenarios[i], 'perplexity'),
        kl: figure(exact.scenarios[i], 'kl'),
      };
      expectQuality(`${scheme} bfloat16`, rounded.scenarios[i], own);
    }
  });
});

function expectQuality(
  label: string,
  measured: Scenario | undefined,
  expected: { readonly perplexity: number; readonly kl: number },
): void {
  const perplexity = figure(measured, 'perplexity') / expected.perplexity;
  expect(Math.abs(perplexity - 1), `${label} perplexity`).toBeLessThanOrEqual(PERPLEXITY_BOUND);
  const kl = figure(measured, 'kl');
  if (expected.kl === 0) expect(kl, `${label} KL`).toBeLessThanOrEqual(BFLOAT16_KL_BOUND);
  else expect(Math.abs(kl / expected.kl - 1), `${label} KL`).toBeLessThanOrEqual(KL_BOUND);
}
