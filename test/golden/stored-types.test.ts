import { cp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readSafetensorsHeader } from '../../src/hub/safetensors.js';
import { decodeBf16 } from '../../src/quant/numerics/bf16.js';
import { decodeFp16, encodeFp16 } from '../../src/quant/numerics/fp16.js';
import { fixtureFolder, loadFolder } from '../helpers/fixture-model.js';
import { lastLogitsOfPrompts } from '../helpers/golden-prompts.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { writeSafetensors } from '../helpers/write-safetensors.js';
import type { TensorSpec } from '../helpers/write-safetensors.js';

const FIXTURE = 'qwen3';
const WEIGHTS = 'model.safetensors';

type FloatValues = readonly number[];
type Store = (values: FloatValues) => Pick<TensorSpec, 'dtype' | 'data'>;

const asFloat32: Store = (values) => ({
  dtype: 'F32',
  data: new Uint8Array(Float32Array.from(values).buffer),
});
const asFloat16: Store = (values) => ({
  dtype: 'F16',
  data: new Uint8Array(Uint16Array.from(values, encodeFp16).buffer),
});
const throughFloat16: Store = (values) => asFloat32(values.map((value) => decodeFp16(encodeFp16(value))));

/** The fixture with every tensor stored in another type. */
async function storeAs(store: Store): Promise<string> {
  const dir = path.join(await createTempDir(), 'model');
  await cp(fixtureFolder(FIXTURE), dir, { recursive: true });
  const file = path.join(dir, WEIGHTS);
  const { tensors } = await readSafetensorsHeader(file);
  const bytes = await readFile(file);
  const stored: Record<string, TensorSpec> = {};
  for (const [name, { shape, offset, byteLength, dtype }] of tensors) {
    expect(dtype).toBe('BF16');
    const values = Array.from({ length: byteLength / 2 }, (_, i) =>
      decodeBf16(bytes.readUInt16LE(offset + 2 * i)),
    );
    stored[name] = { shape, ...store(values) };
  }
  await rm(file);
  await writeSafetensors(file, stored);
  return dir;
}

async function logitsOf(folder: string, quantization: string): Promise<Float32Array> {
  const model = await loadFolder(folder, { quantization });
  const logits = await lastLogitsOfPrompts(model, FIXTURE);
  await model.runner.close();
  return logits;
}

describe.each(['none', 'wint8', 'wint4:g32', 'block_wise_fp8'])(
  '%s of one model in other types',
  (scheme) => {
    it('float32 gives the bits bfloat16 gives', async () => {
      const expected = await logitsOf(fixtureFolder(FIXTURE), scheme);
      expect(await logitsOf(await storeAs(asFloat32), scheme)).toEqual(expected);
    });

    it('float16 gives the bits of float32 values rounded to it', async () => {
      const expected = await logitsOf(await storeAs(throughFloat16), scheme);
      expect(await logitsOf(await storeAs(asFloat16), scheme)).toEqual(expected);
    });
  },
);
