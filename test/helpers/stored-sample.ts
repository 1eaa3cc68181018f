import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { StoredWeight, WeightSource } from '../../src/graph/ir.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import type { Checkpoint } from '../../src/hub/checkpoint.js';
import { STORED_CASES } from './stored-cases.js';
import type { StoredCase } from './stored-formats.js';
import { createTempDir } from './temp-dir.js';
import { writeSafetensors } from './write-safetensors.js';
import type { TensorSpec } from './write-safetensors.js';

export const SAMPLE_MODULE = 'model.layers.0.mlp.up_proj';

export function storedCase(name: string): StoredCase {
  const found = STORED_CASES.find((stored) => stored.name === name);
  if (found === undefined) throw new Error(`there is no case ${name}`);
  return found;
}

/** What a checkpoint of one quantized module and a float tensor is made of. */
export interface StoredSampleFiles {
  readonly config: Readonly<Record<string, unknown>>;
  /** Absent: the config is in config.json. */
  readonly file?: string | undefined;
  /** By suffix of the module's name. */
  readonly tensors: Readonly<Record<string, TensorSpec>>;
  /** Further tensors, by name. */
  readonly more?: Readonly<Record<string, TensorSpec>>;
}

export async function openSample({ config, file, tensors, more }: StoredSampleFiles): Promise<Checkpoint> {
  const dir = path.join(await createTempDir(), 'model');
  await mkdir(dir);
  const inConfig = file === undefined ? { quantization_config: config } : {};
  await writeFile(path.join(dir, 'config.json'), JSON.stringify(inConfig));
  if (file !== undefined) await writeFile(path.join(dir, file), JSON.stringify(config));
  const named = Object.entries(tensors).map(
    ([suffix, spec]) => [`${SAMPLE_MODULE}.${suffix}`, spec] as const,
  );
  await writeSafetensors(path.join(dir, 'model.safetensors'), {
    'lm_head.weight': { dtype: 'BF16', shape: [64, 64] },
    ...Object.fromEntries(named),
    ...more,
  });
  return openCheckpoint({ reference: 'sample', dir });
}

export type StoredSource = WeightSource & { readonly stored: StoredWeight };

/** The quantized weight as a model sees it. */
export function sampleWeight(checkpoint: Checkpoint): StoredSource {
  const tensor = checkpoint.tensors.get(`${SAMPLE_MODULE}.weight`);
  if (tensor?.stored === undefined) throw new Error('the weight is not stored quantized');
  return { ...tensor, dataType: 'bfloat16', stored: tensor.stored };
}
