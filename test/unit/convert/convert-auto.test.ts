import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { chooseSchemes } from '../../../src/choose-schemes.js';
import { writerOf } from '../../../src/convert/formats.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { SCHEMES } from '../../../src/quant/registry.js';
import { convertFixture } from '../../helpers/convert-fixture.js';
import { fixtureFolder, fixtureOptions } from '../../helpers/fixture-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from '../hub/catch-error.js';

/** Of the Llama fixture: enough for some layers in 8 bits. */
const MAX_WEIGHT_BYTES = 750 << 10;

async function choose(format: 'fdq' | 'onnx' | 'safetensors'): Promise<Readonly<Record<string, string>>> {
  const dir = await createTempDir();
  const saveConfig = path.join(dir, 'plan.json');
  const { signal } = new AbortController();
  const chooseQuantization = chooseSchemes({
    auto: { maxWeightBytes: MAX_WEIGHT_BYTES, saveConfig },
    flags: {},
    threads: 2,
    signal,
    onProgress: () => undefined,
    info: () => undefined,
  });
  const load = { ...fixtureOptions(fixtureFolder('llama')), chooseQuantization };
  const { verified } = await convertFixture('llama', dir, undefined, { format, load, verify: true });
  expect(verified).toBeDefined();
  return (JSON.parse(readFileSync(saveConfig, 'utf8')) as { targets: Record<string, string> }).targets;
}

/** Fused matrices whose schemes differ. */
function unequal(targets: Readonly<Record<string, string>>): readonly string[] {
  const next = { q_proj: 'k_proj', k_proj: 'v_proj', gate_proj: 'up_proj' } as const;
  return Object.entries(next).flatMap(([from, to]) =>
    Object.keys(targets).filter(
      (name) => name.endsWith(from) && targets[name] !== targets[name.replace(from, to)],
    ),
  );
}

describe('--quantization auto of a checkpoint', () => {
  it('refuses an output that cannot be written before it measures, or looks for the model', async () => {
    const dir = await createTempDir();
    const file = path.join(dir, 'file');
    writeFileSync(file, '');
    let isMeasured = false;
    const chooseQuantization = (): never => {
      isMeasured = true;
      throw new Error('it measured');
    };
    const load = { ...fixtureOptions(fixtureFolder('llama')), chooseQuantization };
    const refuse = (output: string, model = load.model): Promise<unknown> =>
      catchError(convertFixture('llama', dir, undefined, { output, load: { ...load, model } }));
    expect(await refuse(path.join(dir, 'none', 'out'))).toMatchObject({ code: 'write_failed' });
    expect(await refuse(path.join(file, 'out'))).toMatchObject({ code: 'write_failed' });
    expect(await refuse(file, '/no/such/model')).toMatchObject({ code: 'output_exists' });
    expect(isMeasured).toBe(false);
  });

  it('gives matrices that other engines fuse one scheme, and those of fdq each its own', async () => {
    expect(unequal(await choose('fdq'))).not.toEqual([]);
    const targets = await choose('safetensors');
    expect(Object.keys(targets).filter((name) => name.endsWith('.q_proj'))).not.toEqual([]);
    expect(unequal(targets)).toEqual([]);
    expect(new Set(Object.values(targets)).size).toBeGreaterThan(1);
  });

  it('writes a model for other ONNX Runtimes', async () => {
    expect(new Set(Object.values(await choose('onnx'))).size).toBeGreaterThan(1);
  });

  it.each([
    ['onnx', 64, /^(?:none|wint8|wint4)/],
    ['safetensors', 128, /^(?:none|wint8|wint4|nvfp4|fp8_\w+|block_wise_fp8|w8a8|w4a8|w4afp8)/],
    [
      'safetensors',
      96,
      /^(?:none|(?:wint8|wint4|w4a8|w4afp8)(?::g32(?::mse)?)?$|nvfp4|fp8_\w+|block_wise_fp8|w8a8)/,
    ],
  ] as const)('chooses among what --format %s holds of %i columns', (format, k, expected) => {
    const graph = GraphBuilder.create('empty', new Map([['', 21]])).build();
    const destination = writerOf(format).destination?.(graph);
    const tensor = { name: 'w', shape: [8, k], dataType: 'bfloat16' } as const;
    const held = SCHEMES.filter((scheme) => destination?.bytesOf(tensor, scheme) !== undefined);
    expect(held.map(({ name }) => name)).toEqual(
      SCHEMES.map(({ name }) => name).filter((name) => expected.test(name)),
    );
  });
});
