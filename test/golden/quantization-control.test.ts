import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import type { LoadedModel, LoadOptions } from '../../src/load/load-model.js';
import { widenFloats } from '../../src/quant/numerics/floats.js';
import { resolveScheme } from '../../src/quant/registry.js';
import {
  blockRange,
  fixtureFolder,
  loadFixture,
  loadFolder,
  maxAbsDifference,
  readGolden,
  runStep,
} from '../helpers/fixture-model.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { writeSafetensors, type TensorSpec } from '../helpers/write-safetensors.js';

/** Largest difference of a logit: both models compute in float32, in another order. */
const TOLERANCE = 2e-4;

const open: LoadedModel[] = [];
afterEach(async () => {
  for (const { runner } of open.splice(0)) await runner.close();
});

/** The schemes of a model's layers, by the name of the layer without the path of the decoder layer. */
function schemesOf({ layers }: LoadedModel): Readonly<Record<string, string>> {
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
  for (const tensor of tensors.values()) {
    const { name, file, offset, byteLength, shape } = tensor;
    expect(tensor).toMatchObject({ dtype: 'BF16' });
    const bytes = (await readFile(file)).subarray(offset, offset + byteLength);
    const scheme = resolveScheme(schemes.get(name) ?? 'none');
    const matrix = { name, dataType: 'bfloat16', shape } as const;
    const values =
      scheme.native === null
        ? widenFloats(bytes, 'bfloat16')
        : scheme.dequantize(matrix, scheme.quantize(matrix, { firstRow: 0, bytes }));
    result[name] = { dtype: 'F32', shape, data: new Uint8Array(values.buffer) };
  }
  await writeSafetensors(path.join(dir, 'model.safetensors'), result);
}

/** Loads a fixture under some flags and holds its logits against the same weights, dequantized, as they are. */
async function expectDequantized(fixture: string, options: Partial<LoadOptions>): Promise<LoadedModel> {
  const model = await loadFixture(fixture, options);
  open.push(model);
  const dir = path.join(await createTempDir(), fixture);
  await writeDequantized(
    fixture,
    dir,
    new Map(model.layers.map(({ tensor, scheme }) => [tensor, scheme] as const)),
  );
  const reference = await loadFolder(dir);
  open.push(reference);
  const ids = readGolden(fixture).prompts[2]?.ids ?? [];
  const chunk = { ids, start: 0, blocks: blockRange(0, 3), rows: ids.map((_, row) => row) };
  const [rows, expected] = await Promise.all([runStep(model, [chunk]), runStep(reference, [chunk])]);
  expect(rows).toHaveLength(ids.length);
  for (const [row, logits] of rows.entries()) {
    expect(maxAbsDifference(logits, expected[row] as Float32Array)).toBeLessThan(TOLERANCE);
  }
  return model;
}

describe('a model computes with the schemes its plan gives', () => {
  it('to single layers, members of fused ones and the head', async () => {
    const model = await expectDequantized('llama', {
      quantization: 'W8A16',
      quantizationConfig: {
        targets: {
          're:.*\\.[01]\\..*[qv]_proj': 'wint4:g32',
          'model.layers.1.mlp.up_proj': 'wint4',
          'model.layers.2.*': 'none',
        },
        modules_to_not_convert: ['layers.0.mlp'],
        quantize_lm_head: true,
      },
    });
    expect(model.scheme).toBe('mix_quant');
    expect(schemesOf(model)).toMatchObject({
      '0.q_proj': 'wint4:g32',
      '0.k_proj': 'wint8',
      '0.v_proj': 'wint4:g32',
      '0.o_proj': 'wint8',
      '0.gate_proj': 'none',
      '0.down_proj': 'none',
      '1.gate_proj': 'wint8',
      '1.up_proj': 'wint4',
      '2.q_proj': 'none',
      '2.down_proj': 'none',
      lm_head: 'wint8',
      'model.embed_tokens': 'none',
    });
  });
});
