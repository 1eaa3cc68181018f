import { execFile } from 'node:child_process';
import { readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { UnsupportedError } from '../../../src/errors.js';
import { openCheckpoint, verifyUnchanged } from '../../../src/hub/checkpoint.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { writeSafetensors } from '../../helpers/write-safetensors.js';
import { catchError } from './catch-error.js';
import { FIXTURES, MAX_OPEN_MS, TENSOR, open, writeModel } from './checkpoint-fixture.js';

/** Two shards with one tensor each, `a` and `b`. */
async function writeSharded(dir: string, index?: unknown): Promise<void> {
  const weight_map = { a: 'model-1.safetensors', b: 'model-2.safetensors' };
  await writeFile(join(dir, 'config.json'), '{}');
  await writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify(index ?? { weight_map }));
  await writeSafetensors(join(dir, 'model-1.safetensors'), { a: TENSOR });
  await writeSafetensors(join(dir, 'model-2.safetensors'), { b: TENSOR });
}

describe('openCheckpoint', () => {
  it('opens every fixture folder', async () => {
    const names = await readdir(FIXTURES);
    expect(names).toEqual(expect.arrayContaining(['llama', 'qwen3']));
    for (const name of names) {
      const checkpoint = await open(join(FIXTURES, name));
      expect(checkpoint.tensors.size).toBeGreaterThan(10);
      expect(checkpoint.config['model_type']).toBeTypeOf('string');
      expect(checkpoint.generationConfig).toBeDefined();
      expect(checkpoint.warnings).toEqual([]);
      await verifyUnchanged(checkpoint);
    }
  });

  it('reads a single file', async () => {
    const { tensors, files, totalBytes, reference } = await open(join(FIXTURES, 'qwen3'));
    expect(reference).toBe('ref');
    expect(files).toHaveLength(1);
    expect(tensors.get('model.layers.0.self_attn.q_norm.weight')).toMatchObject({
      dtype: 'BF16',
      shape: [32],
    });
    expect(totalBytes).toBeGreaterThan(1_800_000);
    expect(totalBytes).toBeLessThan(files[0]?.size ?? 0);
  });

  it('joins shards through the index', async () => {
    const { tensors, files } = await open(join(FIXTURES, 'llama'));
    expect(files.map(({ path }) => path)).toEqual(
      [1, 2, 3].map((i) => join(FIXTURES, 'llama', `model-0000${i}-of-00003.safetensors`)),
    );
    expect(new Set([...tensors.values()].map(({ file }) => file)).size).toBe(3);
    const gate = tensors.get('model.layers.2.mlp.gate_proj.weight');
    expect(gate).toMatchObject({ dtype: 'BF16', shape: [320, 128], byteLength: 320 * 128 * 2 });
  });

  it('works without generation_config.json and keeps the revision', async () => {
    const dir = await createTempDir();
    await writeModel(dir);
    const checkpoint = await openCheckpoint({ reference: 'org/name', dir, revision: 'c'.repeat(40) });
    expect(checkpoint).toMatchObject({
      reference: 'org/name',
      dir,
      revision: 'c'.repeat(40),
      totalBytes: 32,
    });
    expect(checkpoint.generationConfig).toBeUndefined();
  });

  it(`opens 300 tensors in less than ${MAX_OPEN_MS} ms`, async () => {
    const dir = await createTempDir();
    await writeFile(join(dir, 'config.json'), '{}');
    const names = Array.from({ length: 300 }, (_, i) => `model.layers.${i}.self_attn.q_proj.weight`);
    await writeSafetensors(
      join(dir, 'model.safetensors'),
      Object.fromEntries(names.map((name) => [name, { dtype: 'BF16', shape: [64, 64] }])),
    );
    // The fastest of a few: other processes share the machine.
    const times: number[] = [];
    for (let run = 0; run < 5; run++) {
      const start = performance.now();
      expect((await open(dir)).tensors.size).toBe(300);
      times.push(performance.now() - start);
    }
    expect(Math.min(...times)).toBeLessThan(MAX_OPEN_MS);
  });

  it('warns about code and pickles, and opens none of them', async () => {
    const dir = await createTempDir();
    await writeModel(dir, { auto_map: { AutoModel: 'modeling.Evil' } });
    for (const name of ['modeling.py', 'pytorch_model.bin', 'extra.pt']) {
      // A named pipe without a writer: opening it would never return.
      await promisify(execFile)('mkfifo', [join(dir, name)]);
    }
    const { warnings } = await open(dir);
    expect(warnings).toHaveLength(3);
    expect(warnings.join('\n')).toMatch(/auto_map[^]*modeling\.py[^]*extra\.pt, pytorch_model\.bin/);
  });
});

describe('openCheckpoint refuses', () => {
  it('a folder without config.json, naming it', async () => {
    const dir = await createTempDir();
    await writeModel(dir);
    await rm(join(dir, 'config.json'));
    const error = await catchError(open(dir));
    expect(error).toMatchObject({ code: 'invalid_checkpoint', exitCode: 3, param: 'config.json' });
    expect(error.message).toContain('config.json');
  });

  it.each<[string, string, RegExp]>([
    ['that is a list', '[]', /config\.json but the top level is a list of 0/],
    ['that is broken', '{"a":', /config\.json but it does not parse/],
    ['with a duplicate key', '{"hidden_size":1,"hidden_size":2}', /"hidden_size" appears twice/],
    ['that is nested deeply', `{"a":${'['.repeat(40)}${']'.repeat(40)}}`, /nested deeper than 32/],
    ['that is huge', `{"a":"${'x'.repeat(16 * 1024 * 1024)}"}`, /at most 16777216 bytes in "config\.json"/],
  ])('a config.json %s', async (_, config, message) => {
    const dir = await createTempDir();
    await writeModel(dir, config);
    const error = await catchError(open(dir));
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toMatch(message);
  });

  it.each([
    [
      'quantization_config',
      { quantization_config: { quant_method: 'hqq' } },
      /quantization_config has quant_method "hqq"/,
    ],
    ['compression_config', { compression_config: {} }, /quantization_config has no quant_method/],
    ['nested', { text_config: { quantization_config: { quant_method: 'eetq' } } }, /quant_method "eetq"/],
    [
      'FastDeploy',
      { quantization_config: { quantization: 'wint4', is_quantized: true } },
      /FastDeploy's is_quantized/,
    ],
  ])('a checkpoint quantized in a way that is not loaded (%s)', async (_, config, message) => {
    const dir = await createTempDir();
    await writeModel(dir, config);
    const error = await catchError(open(dir));
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.code).toBe('unsupported_model');
    expect(error.message).toMatch(message);
    expect(error.message).toContain('fp8, compressed-tensors, gptq, awq, modelopt');
  });

  it('a checkpoint that an older tool has quantized', async () => {
    const dir = await createTempDir();
    await writeModel(dir, { quantization_config: null });
    await expect(open(dir)).resolves.toBeDefined();
    await writeFile(join(dir, 'quantize_config.json'), '{"bits": 3}');
    expect((await catchError(open(dir))).message).toMatch(
      /^quantize_config\.json\.bits is 3; .* gptq .* 4 or 8/,
    );
  });

  it('a config that quantizes tensors which are not quantized', async () => {
    const dir = await createTempDir();
    await writeModel(dir, { quantization_config: { quant_method: 'gptq', bits: 4, group_size: 128 } });
    const error = await catchError(open(dir));
    expect(error).toMatchObject({ code: 'invalid_checkpoint', param: 'quantization_config' });
  });

  it.each(['pytorch_model.bin', 'model.pt', 'model-Q4_K_M.gguf', 'model.onnx'])(
    'a folder that has only %s',
    async (name) => {
      const dir = await createTempDir();
      await writeFile(join(dir, name), 'x');
      const error = await catchError(open(dir));
      expect(error).toBeInstanceOf(UnsupportedError);
      expect(error.code).toBe('unsupported_model');
      expect(error.message).toContain(name);
      expect(error.message).toContain('safetensors (BF16, FP16 or FP32)');
      expect(error.suggestions.join()).toContain(
        name.endsWith('.gguf')
          ? 'Give the safetensors checkpoint that the GGUF was made from'
          : 'save_pretrained',
      );
      expect(error.suggestions.join().includes('genai_config.json')).toBe(name === 'model.onnx');
    },
  );

  it('weights under another name', async () => {
    const dir = await createTempDir();
    await writeModel(dir);
    await rename(join(dir, 'model.safetensors'), join(dir, 'consolidated.safetensors'));
    const error = await catchError(open(dir));
    expect(error.message).toMatch(
      /model\.safetensors or .*index\.json.*\(it has consolidated\.safetensors\)/,
    );
  });

  it('a folder that is gone', async () => {
    expect((await catchError(open(join(await createTempDir(), 'none')))).code).toBe('model_not_found');
  });

  it('a checkpoint without tensors', async () => {
    const dir = await createTempDir();
    await writeModel(dir);
    await writeSafetensors(join(dir, 'model.safetensors'), {});
    expect((await catchError(open(dir))).message).toMatch(/has 0 tensors/);
  });
});

describe('openCheckpoint with shards', () => {
  it('names missing shards', async () => {
    const dir = await createTempDir();
    await writeSharded(dir);
    await rm(join(dir, 'model-2.safetensors'));
    const error = await catchError(open(dir));
    expect(error.message).toMatch(/lacks 1 of the 2 weight files .*: model-2\.safetensors/);
    expect(error.param).toBe('model-2.safetensors');
  });

  it('names a shard that is a dangling link', async () => {
    const dir = await createTempDir();
    await writeSharded(dir);
    await rm(join(dir, 'model-2.safetensors'));
    await symlink('nowhere', join(dir, 'model-2.safetensors'));
    expect((await catchError(open(dir))).message).toMatch(/"model-2\.safetensors" .* is missing/);
  });

  it('refuses a tensor that is not where the index says', async () => {
    const dir = await createTempDir();
    await writeSharded(dir, { weight_map: { a: 'model-2.safetensors', b: 'model-2.safetensors' } });
    expect((await catchError(open(dir))).message).toMatch(
      /tensor "a" is in "model-2\.safetensors", but it is not/,
    );
  });

  it('warns about tensors that the index does not name, and leaves them out', async () => {
    const dir = await createTempDir();
    await writeSharded(dir);
    await writeSafetensors(join(dir, 'model-1.safetensors'), { a: TENSOR, b: TENSOR, c: TENSOR });
    const { tensors, warnings } = await open(dir);
    expect([...tensors.keys()].sort()).toEqual(['a', 'b']);
    expect(tensors.get('b')?.file).toContain('model-2');
    expect(warnings).toEqual([expect.stringMatching(/model-1\.safetensors.*: b, c\./)]);
  });

  it('warns when the sizes do not add up to what the index claims', async () => {
    const dir = await createTempDir();
    const weight_map = { a: 'model-1.safetensors', b: 'model-2.safetensors' };
    await writeSharded(dir, { metadata: { total_size: 65 }, weight_map });
    expect((await open(dir)).warnings).toEqual([expect.stringMatching(/65 bytes.*64/)]);
  });

  it.each([
    '../x.safetensors',
    '/etc/x.safetensors',
    'a/x.safetensors',
    'a\\x.safetensors',
    '..',
    '',
    'x.bin',
    '.safetensors',
    'x\u0000.safetensors',
    `${'x'.repeat(250)}.safetensors`,
    7,
    null,
    ['x.safetensors'],
  ])('refuses the shard name %j', async (shard) => {
    const dir = await createTempDir();
    await writeSharded(dir, { weight_map: { a: shard } });
    const error = await catchError(open(dir));
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toMatch(/tensor "a" is in .*, not in a \.safetensors file of the same folder/);
  });

  it.each([
    ['{}', /"weight_map" is missing/],
    ['{"weight_map":[]}', /"weight_map" is a list of 0/],
    ['{"weight_map":{}}', /"weight_map" is empty/],
    ['{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', /"a" appears twice/],
    ['nope', /does not parse/],
  ])('refuses the index %s', async (index, message) => {
    const dir = await createTempDir();
    await writeSharded(dir);
    await writeFile(join(dir, 'model.safetensors.index.json'), index);
    expect((await catchError(open(dir))).message).toMatch(message);
  });
});
