import { readFileSync } from 'node:fs';
import { copyFile, mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import type { LoadedModel, LoadOptions } from '../../src/load/load-model.js';
import { widenFloats } from '../../src/quant/numerics/floats.js';
import { resolveScheme } from '../../src/quant/registry.js';
import {
  blockRange,
  fixtureFolder,
  loadFolder,
  maxAbsDifference,
  readGolden,
  runStep,
} from './fixture-model.js';
import { restoreWeight, type StoredFloats } from './restore-weight.js';
import { createTempDir } from './temp-dir.js';
import { writeSafetensors, type TensorSpec } from './write-safetensors.js';

/** Largest difference of a logit: both models compute in float32, in another order. */
const TOLERANCE = 2e-4;

/** A model that is closed when the running test ends. */
export async function loadOpen(folder: string, options: Partial<LoadOptions>): Promise<LoadedModel> {
  const model = await loadFolder(folder, options);
  onTestFinished(() => model.runner.close());
  return model;
}

/** The schemes of a model's layers, by the name of the layer without the path of the decoder layer. */
export function schemesOf({ layers }: LoadedModel): Readonly<Record<string, string>> {
  return Object.fromEntries(
    layers.map(({ name, scheme }) => [name.replace(/^model\.layers\.(\d+)\.\w+\./, '$1.'), scheme]),
  );
}

/** The fixture as float32 with some tensors replaced by what their codes stand for. */
async function writeDequantized(
  fixture: string,
  dir: string,
  schemes: ReadonlyMap<string, string>,
): Promise<void> {
  const source = fixtureFolder(fixture);
  await mkdir(dir, { recursive: true });
  for (const file of await readdir(source)) {
    if (!file.includes('safetensors')) await copyFile(path.join(source, file), path.join(dir, file));
  }
  const { tensors } = await openCheckpoint({ reference: fixture, dir: source });
  const result: Record<string, TensorSpec> = {};
  const find = (name: string): StoredFloats => {
    const { file, offset, byteLength, shape } = tensors.get(name)!;
    return { shape, bytes: readFileSync(file).subarray(offset, offset + byteLength) };
  };
  for (const tensor of tensors.values()) {
    const { name, shape } = tensor;
    expect(tensor).toMatchObject({ dtype: 'BF16' });
    const scheme = resolveScheme(schemes.get(name) ?? 'none');
    const values =
      scheme.native === null ? widenFloats(find(name).bytes, 'bfloat16') : restoreWeight(scheme, name, find);
    result[name] = { dtype: 'F32', shape, data: new Uint8Array(values.buffer) };
  }
  await writeSafetensors(path.join(dir, 'model.safetensors'), result);
}

/** Loads a fixture under some flags and holds its logits against the same weights, dequantized, as they are. */
export async function expectDequantized(
  fixture: string,
  options: Partial<LoadOptions>,
): Promise<LoadedModel> {
  const model = await loadOpen(fixtureFolder(fixture), options);
  const dir = path.join(await createTempDir(), fixture);
  await writeDequantized(
    fixture,
    dir,
    new Map(model.layers.map(({ tensor, scheme }) => [tensor, scheme] as const)),
  );
  const reference = await loadOpen(dir, {});
  const ids = readGolden(fixture).prompts[2]?.ids ?? [];
  const chunk = { ids, start: 0, blocks: blockRange(0, 3), rows: ids.map((_, row) => row) };
  const [rows, expected] = await Promise.all([runStep(model, [chunk]), runStep(reference, [chunk])]);
  expect(rows).toHaveLength(ids.length);
  for (const [row, logits] of rows.entries()) {
    expect(maxAbsDifference(logits, expected[row] as Float32Array)).toBeLessThan(TOLERANCE);
  }
  return model;
}
