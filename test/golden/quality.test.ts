import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadModel, type LoadedModel } from '../../src/load/load-model.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';
import { argMax, blockRange, runStep } from '../helpers/fixture-model.js';

const DEMO = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
const WINDOW = 256;
const BLOCKS_PER_WINDOW = WINDOW / 16;
/** Windows packed into one step. */
const WINDOWS_PER_STEP = 4;
/** Bounds against the reference's own figures. */
const PERPLEXITY_BOUND = 0.002;
const KL_BOUND = 0.2;
/** Nats that rounding the inputs of linear layers to bfloat16 may cost by itself; wint8 costs 2e-5. */
const BFLOAT16_KL_BOUND = 5e-6;

interface Reference {
  readonly schemes: Readonly<Record<string, { readonly perplexity: number; readonly kl_nats: number }>>;
  readonly probes: readonly {
    readonly prompt: string;
    readonly input_ids: number[];
    readonly greedy_ids: number[];
  }[];
  readonly perplexity_definition: { readonly tokens: number; readonly windows: number };
}

const reference = JSON.parse(readFileSync(path.join(DEMO, 'reference.json'), 'utf8')) as Reference;

function loadDemo(quantization: string, dtype: 'float32' | 'bfloat16'): Promise<LoadedModel> {
  return loadModel(
    {
      model: DEMO,
      quantization,
      dtype,
      kvCacheDtype: 'auto',
      threads: 2,
      memory: {
        utilization: 0.9,
        numBlocks: 256,
        maxBatchedTokens: WINDOW * WINDOWS_PER_STEP,
        maxModelLen: 512,
      },
    },
    { phase: () => undefined, warn: () => undefined },
  );
}

async function readWindows(): Promise<readonly (readonly number[])[]> {
  const tokenizer = await loadTokenizer(DEMO);
  const ids = tokenizer.encode(readFileSync(path.join(DEMO, 'eval.txt'), 'utf8'), false);
  expect(ids).toHaveLength(reference.perplexity_definition.tokens);
  const count = Math.floor(ids.length / WINDOW);
  expect(count).toBe(reference.perplexity_definition.windows);
  return Array.from({ length: count }, (_, i) => [...ids.slice(i * WINDOW, (i + 1) * WINDOW)]);
}

/** Logits of every position but the last of each window. */
function runWindows(
  model: LoadedModel,
  windows: readonly (readonly number[])[],
): Promise<readonly Float32Array[]> {
  const rows = Array.from({ length: WINDOW - 1 }, (_, i) => i);
  return runStep(
    model,
    windows.map((ids, i) => ({
      ids,
      start: 0,
      blocks: blockRange(i * BLOCKS_PER_WINDOW, BLOCKS_PER_WINDOW),
      rows,
    })),
  );
}

/** Natural log of the softmax of `logits`, into `out`. */
function logSoftmax(logits: Float32Array, out: Float64Array): void {
  let max = -Infinity;
  for (const value of logits) if (value > max) max = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  const norm = max + Math.log(sum);
  for (let v = 0; v < logits.length; v++) out[v] = (logits[v] as number) - norm;
}

/** sum_v P(v) (ln P(v) - ln Q(v)) */
function klDivergence(logP: Float64Array, logQ: Float64Array): number {
  let sum = 0;
  for (let v = 0; v < logP.length; v++) {
    const p = logP[v] as number;
    sum += Math.exp(p) * (p - (logQ[v] as number));
  }
  return sum;
}

interface Quality {
  nll: number;
  kl: number;
  scored: number;
}

/** Runs all models over the same windows, so that the first, unquantized one is computed once. */
async function measure(models: readonly LoadedModel[]): Promise<readonly Quality[]> {
  const windows = await readWindows();
  const vocabSize = models[0]?.decoder.vocabSize ?? 0;
  const results = models.map((): Quality => ({ nll: 0, kl: 0, scored: 0 }));
  const logP = Array.from({ length: WINDOWS_PER_STEP * (WINDOW - 1) }, () => new Float64Array(vocabSize));
  const logQ = new Float64Array(vocabSize);
  for (let first = 0; first < windows.length; first += WINDOWS_PER_STEP) {
    const some = windows.slice(first, first + WINDOWS_PER_STEP);
    for (const [m, model] of models.entries()) {
      const result = results[m] as Quality;
      for (const [i, row] of (await runWindows(model, some)).entries()) {
        const exact = logP[i] as Float64Array;
        const own = m === 0 ? exact : logQ;
        logSoftmax(row, own);
        const target = some[Math.floor(i / (WINDOW - 1))]?.[(i % (WINDOW - 1)) + 1] ?? 0;
        result.nll -= own[target] as number;
        if (m > 0) result.kl += klDivergence(exact, own);
        result.scored++;
      }
    }
  }
  return results;
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
    const results = await measure(models);
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
