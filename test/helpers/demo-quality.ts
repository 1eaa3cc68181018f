import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { LoadedModel } from '../../src/load/load-model.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';
import { blockRange, runStep } from './fixture-model.js';

/** The demo model, its evaluation text and the reference's figures. */
export const DEMO = path.join(import.meta.dirname, '..', '..', 'models', 'demo');
/** Tokens scored together, each window from an empty context. */
const WINDOW = 256;
const BLOCKS_PER_WINDOW = WINDOW / 16;
/** Windows packed into one step. */
const WINDOWS_PER_STEP = 4;

/** Memory that `measureQuality` needs. */
export const QUALITY_MEMORY = {
  utilization: 0.9,
  numBlocks: 256,
  maxBatchedTokens: WINDOW * WINDOWS_PER_STEP,
  maxModelLen: 512,
};

export interface DemoReference {
  readonly schemes: Readonly<Record<string, { readonly perplexity: number; readonly kl_nats: number }>>;
  readonly probes: readonly {
    readonly prompt: string;
    readonly input_ids: number[];
    readonly greedy_ids: number[];
  }[];
  readonly perplexity_definition: { readonly tokens: number; readonly windows: number };
}

export const reference = JSON.parse(readFileSync(path.join(DEMO, 'reference.json'), 'utf8')) as DemoReference;

async function readWindows(): Promise<readonly (readonly number[])[]> {
  const tokenizer = await loadTokenizer(DEMO);
  const ids = tokenizer.encode(readFileSync(path.join(DEMO, 'eval.txt'), 'utf8'), false);
  const count = Math.floor(ids.length / WINDOW);
  const { tokens, windows } = reference.perplexity_definition;
  if (ids.length !== tokens || count !== windows) {
    throw new Error(
      `expected ${tokens} tokens in ${windows} windows but the text has ${ids.length} in ${count}`,
    );
  }
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

/** Sums over the scored tokens. */
export interface Quality {
  /** Negative log likelihood of the text, in nats. */
  nll: number;
  /** Divergence from the first model's distributions, in nats. */
  kl: number;
  scored: number;
}

/**
 * Runs all models over the same windows, so that the first, against which the others are held, is computed once.
 * @param numWindows the first of them; absent: all 221
 */
export async function measureQuality(
  models: readonly LoadedModel[],
  numWindows?: number,
): Promise<readonly Quality[]> {
  const windows = (await readWindows()).slice(0, numWindows);
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
