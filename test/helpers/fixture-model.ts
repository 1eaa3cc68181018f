import { readFileSync } from 'node:fs';
import path from 'node:path';
import { readSafetensorsHeader } from '../../src/hub/safetensors.js';
import { loadModel, type LoadedModel, type LoadOptions } from '../../src/load/load-model.js';
import { packStep, type Chunk } from './step-batch.js';

const FIXTURES = path.join(import.meta.dirname, '..', 'fixtures', 'models');

export interface GoldenPrompt {
  readonly index: number;
  readonly ids: readonly number[];
  readonly logit_positions: readonly number[];
  readonly greedy: readonly number[];
}

export interface Golden {
  readonly vocab_size: number;
  readonly tolerance: { readonly atol_float32: number };
  readonly max_abs_difference_of_logits_when_computed_in: { readonly bfloat16: number };
  readonly prompts: readonly GoldenPrompt[];
}

export function fixtureFolder(name: string): string {
  return path.join(FIXTURES, name);
}

export function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(path.join(FIXTURES, name, 'golden.json'), 'utf8')) as Golden;
}

/** Float32 tensors of a safetensors file by name. */
export async function readFloatTensors(file: string): Promise<ReadonlyMap<string, Float32Array>> {
  const { tensors } = await readSafetensorsHeader(file);
  const bytes = readFileSync(file);
  const result = new Map<string, Float32Array>();
  for (const [name, { dtype, offset, byteLength }] of tensors) {
    if (dtype !== 'F32') continue;
    result.set(
      name,
      new Float32Array(bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + offset + byteLength)),
    );
  }
  return result;
}

export function loadFixture(name: string, options: Partial<LoadOptions> = {}): Promise<LoadedModel> {
  return loadFolder(fixtureFolder(name), options);
}

export function loadFolder(folder: string, options: Partial<LoadOptions> = {}): Promise<LoadedModel> {
  return loadModel(
    { ...fixtureOptions(folder), ...options },
    { phase: () => undefined, warn: () => undefined },
  );
}

/** Float32 throughout, with room for every golden prompt. */
export function fixtureOptions(folder: string): LoadOptions {
  return {
    model: folder,
    dtype: 'float32',
    kvCacheDtype: 'auto',
    threads: 2,
    memory: { utilization: 0.9, numBlocks: 128, maxBatchedTokens: 512, maxModelLen: 512 },
  };
}

/** `count` consecutive KV blocks from `first`. */
export function blockRange(first: number, count: number): readonly number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

/** Runs one step and copies the logits of each wanted row. */
export async function runStep(
  model: { readonly runner: LoadedModel['runner']; readonly decoder: { readonly vocabSize: number } },
  chunks: readonly Chunk[],
): Promise<readonly Float32Array[]> {
  const { vocabSize } = model.decoder;
  const logits = await model.runner.logits(packStep(chunks));
  return Array.from({ length: logits.length / vocabSize }, (_, row) =>
    logits.slice(row * vocabSize, (row + 1) * vocabSize),
  );
}

export function argMax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++)
    if ((values[i] ?? -Infinity) > (values[best] ?? -Infinity)) best = i;
  return best;
}

export function maxAbsDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  // NaN must not pass for "no difference".
  return a.reduce((worst, value, i) => {
    const difference = Math.abs(value - (b[i] ?? NaN));
    return difference <= worst ? worst : Number.isNaN(difference) ? Infinity : difference;
  }, 0);
}
