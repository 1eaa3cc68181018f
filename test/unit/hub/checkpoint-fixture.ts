import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../../src/hub/checkpoint.js';
import type { Checkpoint } from '../../../src/hub/checkpoint.js';
import { writeSafetensors } from '../../helpers/write-safetensors.js';
import type { TensorSpec } from '../../helpers/write-safetensors.js';

export const FIXTURES = fileURLToPath(new URL('../../fixtures/models', import.meta.url));
export const MAX_OPEN_MS = 50;
export const TENSOR: TensorSpec = { dtype: 'BF16', shape: [4, 4] };

export function open(dir: string): Promise<Checkpoint> {
  return openCheckpoint({ reference: 'ref', dir });
}

export async function writeModel(
  dir: string,
  config: string | object = { model_type: 'llama' },
): Promise<void> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config));
  await writeSafetensors(join(dir, 'model.safetensors'), { w: TENSOR });
}
