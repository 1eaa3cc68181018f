import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  const ids = tokenizer.encode(readFileSync(path.join(DEMO, 'eval.txt'), 'utf8'), {
    addSpecialTokens: false,
  });
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

function logSumExp(logits: Float32Array): number {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  return max + Math.log(logits.reduce((sum, value) => sum + Math.exp(value - max), 0));
}

/** sum_v P(v) (ln P(v) - ln Q(v)) of two rows of logits. */
function klDivergence(p: Float32Array, q: Float32Array): number {
  const [normP, normQ] = [logSumExp(p), logSumExp(q)];
  let sum = 0;
  for (let v = 0; v < p.length; v++) {
    const logP = (p[v] ?? 0) - normP;
    sum += Math.exp(logP) * (logP - ((q[v] ?? 0) - normQ));
  }
  return sum;
}

async function measure(base: LoadedModel, model: LoadedModel): Promise<{ perplexity: number; kl: number }> {
  const windows = await readWindows();
  let nll = 0;
  let kl = 0;
  let scored = 0;
  for (let first = 0; first < windows.length; first += WINDOWS_PER_STEP) {
    const some = windows.slice(first, first + WINDOWS_PER_STEP);
    const exact = await runWindows(base, some);
    const logits = model === base ? exact : await runWindows(model, some);
    for (const [i, row] of logits.entries()) {
      const target = some[Math.floor(i / (WINDOW - 1))]?.[(i % (WINDOW - 1)) + 1] ?? 0;
      nll += logSumExp(row) - (row[target] ?? 0);
      kl += model === base ? 0 : klDivergence(exact[i] ?? row, row);
      scored++;
    }
  }
  return { perplexity: Math.exp(nll / scored), kl: kl / scored };
}

describe('the demo model has the quality of the reference', () => {
  let base: LoadedModel;
  beforeAll(async () => {
    base = await loadDemo('none', 'float32');
  });
  afterAll(() => base.runner.close());

  it('continues every probe with the reference ids, unquantized', async () => {
    const blocks = blockRange(0, 32);
    for (const probe of reference.probes) {
      const ids = probe.input_ids;
      let [row] = await runStep(base, [{ ids, start: 0, blocks, rows: [ids.length - 1] }]);
      const greedy: number[] = [];
      while (greedy.length < probe.greedy_ids.length) {
        const next = argMax(row ?? new Float32Array());
        greedy.push(next);
        [row] = await runStep(base, [
          { ids: [next], start: ids.length + greedy.length - 1, blocks, rows: [0] },
        ]);
      }
      expect(greedy, probe.prompt).toEqual(probe.greedy_ids);
    }
  });

  it.each([
    ['none', 'bf16'],
    ['wint8', 'wint8_channel'],
    ['wint4', 'wint4_channel'],
    ['wint4:g128', 'wint4_g128'],
    ['wint4:g32', 'wint4_g32'],
    ['block_wise_fp8', 'fp8_block128'],
  ])('%s: perplexity and KL divergence', { timeout: 300_000 }, async (scheme, key) => {
    const expected = reference.schemes[key];
    const model = scheme === 'none' ? base : await loadDemo(scheme, 'float32');
    const { perplexity, kl } = await measure(base, model);
    if (model !== base) await model.runner.close();
    expect(expected).toBeDefined();
    expect(Math.abs(perplexity / (expected?.perplexity ?? NaN) - 1)).toBeLessThanOrEqual(PERPLEXITY_BOUND);
    if (model !== base) expect(Math.abs(kl / (expected?.kl_nats ?? NaN) - 1)).toBeLessThanOrEqual(KL_BOUND);
  });
});
