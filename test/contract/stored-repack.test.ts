import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { StoredWeight, WeightSource } from '../../src/graph/ir.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import type { Checkpoint } from '../../src/hub/checkpoint.js';
import { openWeightFile } from '../../src/hub/weight-file.js';
import { repackStored } from '../../src/load/repack-stored.js';
import { memberSlices, unpackPanels } from '../../src/quant/packed-layout.js';
import { schemeOfStored } from '../../src/quant/stored-scheme.js';
import { openAddon } from '../helpers/addon.js';
import { STORED_CASES } from '../helpers/stored-cases.js';
import { createRandom, INPUT_SCALE } from '../helpers/stored-formats.js';
import type { StoredCase, StoredSample } from '../helpers/stored-formats.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { writeSafetensors } from '../helpers/write-safetensors.js';

const { addon } = openAddon();
const MODULE = 'model.layers.0.mlp.up_proj';
const FLOATS = { dtype: 'BF16', shape: [64, 64] };

/** A checkpoint of one quantized module and a float tensor. */
async function openSample(stored: StoredCase, { tensors }: StoredSample): Promise<Checkpoint> {
  const dir = path.join(await createTempDir(), 'model');
  await mkdir(dir);
  const config = stored.file === undefined ? { quantization_config: stored.config } : {};
  await writeFile(path.join(dir, 'config.json'), JSON.stringify(config));
  if (stored.file !== undefined) await writeFile(path.join(dir, stored.file), JSON.stringify(stored.config));
  const named = Object.entries(tensors).map(([suffix, tensor]) => [`${MODULE}.${suffix}`, tensor] as const);
  await writeSafetensors(path.join(dir, 'model.safetensors'), {
    'lm_head.weight': FLOATS,
    ...Object.fromEntries(named),
  });
  return openCheckpoint({ reference: 'sample', dir });
}

type StoredSource = WeightSource & { readonly stored: StoredWeight };

function weightOf(checkpoint: Checkpoint): StoredSource {
  const tensor = checkpoint.tensors.get(`${MODULE}.weight`);
  if (tensor?.stored === undefined) throw new Error('the weight is not stored quantized');
  return { ...tensor, dataType: 'bfloat16', stored: tensor.stored };
}

/** The floats that the repacked panels of a stored weight stand for. */
async function repackedWeights(source: StoredSource, threads: number): Promise<Float32Array> {
  const [n = 0, k = 0] = source.shape;
  const { native } = source.stored.format;
  const [slice] = memberSlices([n], k, native);
  // Whatever was there before must not matter.
  const target = {
    weight: new Uint8Array(slice!.weightBytes).fill(0xa5),
    scales: new Float32Array(slice!.scaleCount).fill(NaN),
    ...(native.block === undefined ? {} : { blockScales: new Uint8Array(slice!.blockScaleBytes).fill(0xff) }),
    ...(native.asymmetric === true ? { zeroPoints: new Int8Array(slice!.zeroPointCount).fill(0x55) } : {}),
  };
  const handle = await openWeightFile(source.file);
  try {
    await repackStored(addon, { source, target, threads, fdOf: () => handle.fd });
  } finally {
    await handle.close();
  }
  const { weight: codes, ...parts } = target;
  const canonical = unpackPanels({ n, k, native }, { codes, ...parts });
  return schemeOfStored(source.stored).dequantize(source, canonical);
}

/** Rows and columns that fill panels, groups and tiles, or not. */
const SHAPES = [
  [1, 1],
  [17, 96],
  [150, 200],
  [272, 136],
] as const;

describe.each(STORED_CASES.map((stored) => [stored.name, stored] as const))('%s', (_, stored) => {
  const [unitN, unitK] = stored.unit;
  const shapes = SHAPES.map(
    ([n, k]) => [Math.ceil(n / unitN) * unitN, Math.ceil(k / unitK) * unitK] as const,
  );

  it.each(shapes)('[%i, %i] keeps its values bit for bit, on any number of threads', async (n, k) => {
    const sample = stored.write(n, k, createRandom(n * 1000 + k));
    const source = weightOf(await openSample(stored, sample));
    expect(source.shape).toEqual([n, k]);
    for (const threads of [1, 3]) {
      const values = await repackedWeights(source, threads);
      expect(Buffer.compare(Buffer.from(values.buffer), Buffer.from(sample.weights.buffer))).toBe(0);
    }
  });

  it('is named and rounds inputs as its config says', async () => {
    const [n, k] = shapes[3]!;
    const checkpoint = await openSample(stored, stored.write(n, k, createRandom(7)));
    const { scheme, format } = weightOf(checkpoint).stored;
    expect(scheme).toBe(stored.scheme);
    expect(format.activation).toBe(stored.activation);
    expect(format.activationScale).toBe(stored.activation.endsWith('static') ? INPUT_SCALE : undefined);
    expect([...checkpoint.tensors.keys()]).toEqual(['lm_head.weight', `${MODULE}.weight`]);
    expect(checkpoint.warnings).toEqual([]);
  });
});
