import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { LoadedModel } from '../../src/load/load-model.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';
import { blockRange } from './fixture-model.js';
import { packStep } from './step-batch.js';

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

/**
 * Logits of every position but the last of each window, one row after the other. They stay valid until the model's
 * next step.
 */
function runWindows(model: LoadedModel, windows: readonly (readonly number[])[]): Promise<Float32Array> {
  const rows = Array.from({ length: WINDOW - 1 }, (_, i) => i);
  const chunks = windows.map((ids, i) => ({
    ids,
    start: 0,
    blocks: blockRange(i * BLOCKS_PER_WINDOW, BLOCKS_PER_WINDOW),
    rows,
  }));
  return model.runner.logits(packStep(chunks));
}

/** Natural log of the sum of exponentials: log softmax is what is above it. */
function logSumExp(logits: Float32Array): number {
  let max = -Infinity;
  for (const value of logits) if (value > max) max = value;
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - max);
  return max + Math.log(sum);
}

/** The first model's distributions of a step's rows. */
class Exact {
  /** [rows, vocab]: probabilities, each row's sum 1 but for rounding. */
  readonly #probabilities: Float64Array;
  /** [rows]: sum_v P(v) ln P(v) */
  readonly #negativeEntropies: Float64Array;
  readonly #vocabSize: number;

  constructor(rows: number, vocabSize: number) {
    this.#probabilities = new Float64Array(rows * vocabSize);
    this.#negativeEntropies = new Float64Array(rows);
    this.#vocabSize = vocabSize;
  }

  set(row: number, logits: Float32Array, norm: number): void {
    const p = this.#row(row);
    let sum = 0;
    for (let v = 0; v < p.length; v++) {
      const logP = (logits[v] as number) - norm;
      const probability = Math.exp(logP);
      p[v] = probability;
      sum += probability * logP;
    }
    this.#negativeEntropies[row] = sum;
  }

  /** sum_v P(v) (ln P(v) - ln Q(v)) with ln Q(v) = logits(v) - norm. */
  divergence(row: number, logits: Float32Array, norm: number): number {
    const p = this.#row(row);
    let sum = 0;
    for (let v = 0; v < p.length; v++) sum += (p[v] as number) * ((logits[v] as number) - norm);
    return (this.#negativeEntropies[row] as number) - sum;
  }

  #row(row: number): Float64Array {
    return this.#probabilities.subarray(row * this.#vocabSize, (row + 1) * this.#vocabSize);
  }
}

/** Sums over the scored tokens. */
export interface Quality {
  /** Negative log likelihood of the text, in nats. */
  readonly nll: number;
  /** Divergence from the first model's distributions, in nats. */
  readonly kl: number;
  readonly scored: number;
}

/** What one step of a model adds; the first model's distributions are put into `exact`, others held against it. */
function scoreStep(
  logits: Float32Array,
  windows: readonly (readonly number[])[],
  exact: Exact,
  isFirst: boolean,
): Quality {
  const scored = windows.length * (WINDOW - 1);
  const vocabSize = logits.length / scored;
  let nll = 0;
  let kl = 0;
  for (let i = 0; i < scored; i++) {
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
    const norm = logSumExp(row);
    const target = windows[Math.floor(i / (WINDOW - 1))]?.[(i % (WINDOW - 1)) + 1] ?? 0;
    nll += norm - (row[target] as number);
    if (isFirst) exact.set(i, row, norm);
    else kl += exact.divergence(i, row, norm);
  }
  return { nll, kl, scored };
}

export function addQuality(a: Quality, b: Quality): Quality {
  return { nll: a.nll + b.nll, kl: a.kl + b.kl, scored: a.scored + b.scored };
}

/**
 * Runs all models over the same windows, so that the first, against which the others are held, is computed once. A
 * model computes while the logits of the one before it are scored.
 * @param models at least two
 * @param end window to stop before; absent: behind the last of all 221
 */
export async function measureQuality(
  models: readonly LoadedModel[],
  end?: number,
  start = 0,
): Promise<readonly Quality[]> {
  if (models.length < 2) throw new Error(`expected at least two models but received ${models.length}`);
  const windows = (await readWindows()).slice(start, end);
  const exact = new Exact(WINDOWS_PER_STEP * (WINDOW - 1), models[0]?.decoder.vocabSize ?? 0);
  const results = models.map((): Quality => ({ nll: 0, kl: 0, scored: 0 }));
  const steps = Array.from({ length: Math.ceil(windows.length / WINDOWS_PER_STEP) }, (_, step) =>
    windows.slice(step * WINDOWS_PER_STEP, (step + 1) * WINDOWS_PER_STEP),
  ).flatMap((some) => models.map((model, m) => ({ some, model, m })));
  let running = steps[0] && runWindows(steps[0].model, steps[0].some);
  for (const [at, { some, m }] of steps.entries()) {
    const logits = (await running) ?? new Float32Array();
    const next = steps[at + 1];
    running = next && runWindows(next.model, next.some);
    results[m] = addQuality(results[m] as Quality, scoreStep(logits, some, exact, m === 0));
  }
  return results;
}
