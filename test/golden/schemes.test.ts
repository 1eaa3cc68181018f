import { cp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { readSafetensorsHeader } from '../../src/hub/safetensors.js';
import { SCHEMES } from '../../src/quant/registry.js';
import type { QuantScheme } from '../../src/quant/scheme.js';
import {
  blockRange,
  fixtureFolder,
  loadFolder,
  maxAbsDifference,
  readGolden,
  runStep,
} from '../helpers/fixture-model.js';
import { restoreWeight, type StoredFloats } from '../helpers/restore-weight.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { buildSafetensors, type TensorSpec } from '../helpers/write-safetensors.js';

/** Ragged in every way: hidden 96, intermediate 200, biases, a fused q/k/v of three sizes. */
const FIXTURE = 'qwen2';
const WEIGHTS = 'model.safetensors';
const PROMPT = 2;
const PROJECTION = '_proj.weight';
/**
 * Rounding inputs may turn the logits this far from those of exact inputs. A value that falls on the other side of a
 * rounding boundary moves them visibly, so the largest difference says nothing.
 */
const COSINES: Readonly<Record<string, number>> = { int8: 0.999, float8e4m3fn: 0.99 };

const golden = readGolden(FIXTURE);
const { ids } = golden.prompts[PROMPT] ?? { ids: [] };
const online = SCHEMES.filter(({ native, online: isOnline }) => native !== null && isOnline);

interface StoredTensor extends TensorSpec {
  readonly data: Uint8Array;
}

async function readTensors(file: string): Promise<Readonly<Record<string, StoredTensor>>> {
  const bytes = await readFile(file);
  const { tensors } = await readSafetensorsHeader(file);
  return Object.fromEntries(
    [...tensors].map(([name, { dtype, shape, offset, byteLength }]) => [
      name,
      { dtype, shape, data: bytes.subarray(offset, offset + byteLength) },
    ]),
  );
}

/** The fixture with the projections replaced by what the oracle makes of them. */
async function writeRestored(scheme: QuantScheme): Promise<string> {
  const folder = path.join(await createTempDir(), 'model');
  await cp(fixtureFolder(FIXTURE), folder, { recursive: true });
  const tensors: Record<string, TensorSpec> = { ...(await readTensors(path.join(folder, WEIGHTS))) };
  const original = { ...tensors };
  const find = (name: string): StoredFloats => {
    const { shape, data: bytes = new Uint8Array() } = original[name] ?? { shape: [] };
    return { shape, bytes };
  };
  for (const [name, { dtype, shape }] of Object.entries(original)) {
    if (!name.endsWith(PROJECTION) || dtype !== 'BF16') continue;
    const restored = restoreWeight(scheme, name, find);
    tensors[name] = { dtype: 'F32', shape, data: new Uint8Array(restored.buffer) };
  }
  await writeFile(path.join(folder, WEIGHTS), buildSafetensors(tensors));
  return folder;
}

/** Logits of every position of the prompt, one after the other. */
async function logitsOf(folder: string, quantization: string): Promise<Float32Array> {
  const model = await loadFolder(folder, { quantization });
  const rows = await runStep(model, [
    { ids, start: 0, blocks: blockRange(0, Math.ceil(ids.length / 16)), rows: ids.map((_, i) => i) },
  ]);
  await model.runner.close();
  return Float32Array.from(rows.flatMap((row) => [...row]));
}

function cosine(a: Float32Array, b: Float32Array): number {
  let dot = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (const [i, x] of a.entries()) {
    const y = b[i] ?? NaN;
    dot += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  return dot / Math.sqrt(squaresA * squaresB);
}

describe('a served model computes what its oracle says', () => {
  let unquantized: Float32Array;

  beforeAll(async () => {
    unquantized = await logitsOf(fixtureFolder(FIXTURE), 'none');
  });

  it.each(online.map((scheme) => [scheme.name, scheme] as const))('%s', async (name, scheme) => {
    const served = await logitsOf(fixtureFolder(FIXTURE), name);
    const restored = await logitsOf(await writeRestored(scheme), 'none');
    const tolerance = golden.tolerance.atol_float32;
    // Else the scheme was not applied.
    expect(maxAbsDifference(served, unquantized)).toBeGreaterThan(tolerance);
    if (scheme.activation === null) {
      expect(maxAbsDifference(served, restored)).toBeLessThanOrEqual(tolerance);
      return;
    }
    expect(maxAbsDifference(served, restored)).toBeGreaterThan(tolerance);
    expect(cosine(served, restored)).toBeGreaterThan(COSINES[scheme.activation.element] ?? NaN);
  });
});
