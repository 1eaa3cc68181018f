import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { layoutOf } from '../../src/convert/safetensors/stored-layout.js';
import { describeIndex, layOutShards } from '../../src/convert/safetensors/shards.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import type { LoadedModel } from '../../src/load/load-model.js';
import { resolveScheme, SCHEMES } from '../../src/quant/registry.js';
import { convertFixture, convertFolder } from '../helpers/convert-fixture.js';
import {
  fixtureFolder,
  fixtureOptions,
  loadFixture,
  loadFolder,
  maxAbsDifference,
  runStep,
} from '../helpers/fixture-model.js';
import {
  dequantizeCompressed,
  dequantizeTiles,
  readRawTensors,
  type RawTensor,
} from '../helpers/read-compressed.js';
import { restoreWeight, type StoredFloats } from '../helpers/restore-weight.js';
import { createTempDir } from '../helpers/temp-dir.js';

const PROMPT = { ids: [1, 2, 3, 5, 8, 13, 21, 34, 55, 89], start: 0, blocks: [0], rows: [0, 4, 9] };
/** The reciprocal of nvfp4's tensor scale is rounded to float32: one unit in the last place. */
const NVFP4_RELATIVE = 2 ** -22;

interface Group {
  readonly targets: readonly string[];
  readonly format?: string;
  readonly weights: Parameters<typeof dequantizeCompressed>[1];
  readonly input_activations: Readonly<Record<string, unknown>> | null;
}

interface QuantizationConfig {
  readonly quant_method: string;
  readonly format: string;
  readonly config_groups: Readonly<Record<string, Group>>;
  readonly ignore: readonly string[];
}

let dir: string;
beforeEach(async () => {
  dir = await createTempDir();
});

function configOf(output: string): Record<string, unknown> & { quantization_config: QuantizationConfig } {
  const text = readFileSync(path.join(output, 'config.json'), 'utf8');
  return JSON.parse(text) as ReturnType<typeof configOf>;
}

async function logitsOf(model: LoadedModel): Promise<readonly Float32Array[]> {
  const logits = await runStep(model, [PROMPT]);
  await model.runner.close();
  return logits;
}

/** Arrays this long are compared here: the matcher would take seconds. */
function isNear(found: Float32Array, expected: Float32Array, relative: number): boolean {
  const isClose = (value: number, i: number): boolean =>
    Math.abs(value - expected[i]!) <= relative * Math.abs(expected[i]!);
  return found.length === expected.length && found.every(isClose);
}

function expectSame(found: RawTensor | undefined, expected: RawTensor): void {
  expect(found).toMatchObject({ dtype: expected.dtype, shape: expected.shape });
  expect(Buffer.compare(found!.bytes, expected.bytes)).toBe(0);
}

/** Values of the quantized modules of the first decoder layer of the output, by an independent reader. */
function dequantizeAll(output: string): ReadonlyMap<string, Float32Array> {
  const tensors = readRawTensors(output, ['model.safetensors']);
  const config = configOf(output).quantization_config;
  const modules = [...tensors.keys()].flatMap(
    (name) => /^(.*layers\.0\..*)\.weight_scale(?:_inv)?$/.exec(name)?.[1] ?? [],
  );
  return new Map(
    modules.map((module) => {
      const read = (suffix: string) => tensors.get(`${module}.${suffix}`)!;
      if (config.quant_method === 'fp8') return [module, dequantizeTiles(read)];
      const groups = Object.values(config.config_groups);
      const group = groups.find(({ targets }) => targets.includes(module)) ?? groups[0]!;
      return [module, dequantizeCompressed(group.format ?? config.format, group.weights, read)];
    }),
  );
}

const WITH_LAYOUT = SCHEMES.filter((scheme) => layoutOf(scheme) !== undefined).map(({ name }) => name);
const WITHOUT = SCHEMES.filter(({ native }) => native !== null)
  .map(({ name }) => name)
  .filter((name) => !WITH_LAYOUT.includes(name));

describe.each(WITH_LAYOUT)('fdq convert --format safetensors --quantization %s', (name) => {
  it('stores what the scheme makes of the weights, and is served with the same logits', async () => {
    const { output } = await convertFixture('qwen3', dir, name, { format: 'safetensors' });
    const scheme = resolveScheme(name);
    const source = await openCheckpoint({ reference: 'qwen3', dir: fixtureFolder('qwen3') });
    const found = dequantizeAll(output);
    expect(found.size).toBe(7);
    const find = (weight: string): StoredFloats => {
      const { file, offset, byteLength, shape } = source.tensors.get(weight)!;
      return { shape, bytes: readFileSync(file).subarray(offset, offset + byteLength) };
    };
    for (const [module, values] of found) {
      const expected = restoreWeight(scheme, `${module}.weight`, find);
      expect(isNear(values, expected, name === 'nvfp4' ? NVFP4_RELATIVE : 0)).toBe(true);
    }
    const expected = await logitsOf(await loadFixture('qwen3', { quantization: name }));
    const stored = await loadFolder(output);
    expect(stored.scheme).toBe('none');
    const canonical = name.replace(/:mse$/, '');
    const schemes = stored.layers.filter(({ scheme: one }) => one !== 'none').map(({ scheme: one }) => one);
    expect(new Set(schemes)).toEqual(new Set([canonical]));
    const logits = await logitsOf(stored);
    for (const [row, values] of logits.entries()) {
      expect(maxAbsDifference(values, expected[row]!)).toBeLessThanOrEqual(name === 'nvfp4' ? 1e-3 : 0);
    }
  });
});

describe('fdq convert --format safetensors', () => {
  it.each(WITHOUT)('refuses %s by name, and says what works', async (name) => {
    await expect(convertFixture('qwen3', dir, name, { format: 'safetensors' })).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining(name) as string,
      suggestions: [expect.stringContaining('fp8_per_channel') as string],
    });
    expect(readdirSync(dir)).toEqual([]);
  });

  it('tells engines what is quantized how, and copies the rest', async () => {
    const { output } = await convertFixture('qwen3', dir, 'w8a8', { format: 'safetensors' });
    const original = JSON.parse(
      readFileSync(path.join(fixtureFolder('qwen3'), 'config.json'), 'utf8'),
    ) as object;
    const { quantization_config: config, ...rest } = configOf(output);
    expect(rest).toEqual(original);
    expect(config).toEqual({
      quant_method: 'compressed-tensors',
      quantization_status: 'compressed',
      format: 'int-quantized',
      config_groups: {
        group_0: {
          targets: ['Linear'],
          weights: { num_bits: 8, type: 'int', symmetric: true, strategy: 'channel', dynamic: false },
          input_activations: { num_bits: 8, type: 'int', symmetric: true, strategy: 'token', dynamic: true },
          output_activations: null,
        },
      },
      ignore: ['model.embed_tokens', 'lm_head'],
    });
    const tensors = readRawTensors(output, ['model.safetensors']);
    const before = readRawTensors(fixtureFolder('qwen3'), ['model.safetensors']);
    for (const [name, tensor] of before) {
      if (!tensors.has(name)) throw new Error(`${name} is missing`);
      if (!name.includes('_proj')) expectSame(tensors.get(name), tensor);
    }
    expect(existsSync(path.join(output, 'tokenizer.json'))).toBe(
      existsSync(path.join(fixtureFolder('qwen3'), 'tokenizer.json')),
    );
  });

  it('packs what stays integers alone, as engines want it', async () => {
    const { output } = await convertFixture('qwen3', dir, 'wint8:g64', { format: 'safetensors' });
    const { format, config_groups: groups } = configOf(output).quantization_config;
    expect(format).toBe('pack-quantized');
    expect(groups['group_0']).toMatchObject({
      weights: { num_bits: 8, strategy: 'group', group_size: 64 },
      input_activations: null,
    });
  });

  it('writes tiles of FP8 as DeepSeek does', async () => {
    const { output } = await convertFixture('llama', dir, 'block_wise_fp8', { format: 'safetensors' });
    expect(configOf(output).quantization_config).toEqual({
      quant_method: 'fp8',
      fmt: 'e4m3',
      activation_scheme: 'dynamic',
      weight_block_size: [128, 128],
      modules_to_not_convert: ['lm_head'],
    });
  });

  it('gives each scheme of a mixed model its group, by layer names', async () => {
    const quantization = JSON.stringify({
      quantization: 'wint4:g64',
      targets: { 're:.*mlp.*': 'block_wise_fp8', 're:.*1.self_attn.*': 'fp8_per_tensor' },
    });
    const { output } = await convertFixture('qwen3', dir, quantization, {
      format: 'safetensors',
      verify: true,
    });
    const { format, config_groups: groups } = configOf(output).quantization_config;
    expect(format).toBe('mixed-precision');
    const formats = Object.values(groups).map((group) => [group.format, group.targets.length]);
    expect(formats).toEqual([
      ['pack-quantized', 4],
      ['float-quantized', 6],
      ['float-quantized', 4],
    ]);
  });

  it('writes what is not quantized without a quantization config', async () => {
    const { output } = await convertFixture('llama', dir, 'none', { format: 'safetensors', verify: true });
    expect(configOf(output)).not.toHaveProperty('quantization_config');
    const expected = readRawTensors(
      fixtureFolder('llama'),
      readdirSync(fixtureFolder('llama')).filter((file) => /^model-.*\.safetensors$/.test(file)),
    );
    const found = readRawTensors(output, ['model.safetensors']);
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, tensor] of expected) expectSame(found.get(name), tensor);
  });

  it('verifies a quantized lm_head bit for bit', async () => {
    const load = { quantizeLmHead: true };
    const { verified } = await convertFixture('llama', dir, 'w4a8', {
      format: 'safetensors',
      verify: true,
      load: {
        ...fixtureOptions(fixtureFolder('llama')),
        ...load,
        quantization: 'w4a8',
      },
    });
    expect(verified).toMatch(/^\d+ logits are equal$/);
    const { ignore, config_groups: groups } = configOf(path.join(dir, 'out')).quantization_config;
    expect(ignore).toEqual([]);
    // vLLM's head is no Linear.
    expect(groups['group_0']?.targets).toEqual(['Linear', 'lm_head']);
  });

  it.each(['w4a8', 'w4a8:g64', 'w4afp8', 'w4afp8:g128'])(
    'names the format in the group of %s, which engines would else take for int-quantized',
    async (name) => {
      const { output } = await convertFixture('qwen3', dir, name, { format: 'safetensors' });
      const { format, config_groups: groups } = configOf(output).quantization_config;
      expect(format).toBe('pack-quantized');
      expect(Object.values(groups).map((group) => group.format)).toEqual(['pack-quantized']);
      expect(groups['group_0']?.input_activations).toMatchObject({ num_bits: 8, strategy: 'token' });
    },
  );

  it('refuses groups that do not divide a layer, and quantized embeddings', async () => {
    await expect(convertFixture('llama', dir, 'wint4:g128', { format: 'safetensors' })).rejects.toMatchObject(
      {
        code: 'unsupported_model',
        message: expect.stringContaining('mlp.down_proj.weight as wint4:g128: its 320 columns') as string,
      },
    );
    const load = {
      ...fixtureOptions(fixtureFolder('llama')),
      quantization: 'wint8',
      quantizeEmbeddings: true,
    };
    await expect(
      convertFixture('llama', dir, undefined, { format: 'safetensors', load }),
    ).rejects.toMatchObject({ message: expect.stringContaining('quantized embeddings') as string });
  });

  it('turns a GPTQ checkpoint into one of compressed-tensors, with the codes it has', async () => {
    const stored = path.join(fixtureFolder('..'), 'offline', 'qwen3_gptq_g128');
    const { output } = await convertFolder(stored, dir, undefined, { format: 'safetensors', verify: true });
    expect(configOf(output).quantization_config).toMatchObject({ quant_method: 'compressed-tensors' });
    const [found, expected] = [
      await logitsOf(await loadFolder(output)),
      await logitsOf(await loadFolder(stored)),
    ];
    for (const [row, values] of found.entries()) expect(maxAbsDifference(values, expected[row]!)).toBe(0);
  });

  it('refuses stored weights that no layout here has', async () => {
    const stored = path.join(fixtureFolder('..'), 'offline', 'llama_gptq_g32_asym_actorder');
    await expect(convertFolder(stored, dir, undefined, { format: 'safetensors' })).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining('asymmetric') as string,
    });
  });
});

describe('shards', () => {
  const tensor = (name: string, byteLength: number) =>
    ({ name, dtype: 'U8', shape: [byteLength], byteLength }) as const;

  it('hold at most so many bytes, unless one tensor has more, and an index names their tensors', () => {
    const plan = layOutShards(
      [tensor('a', 60), tensor('b', 40), tensor('c', 1), tensor('d', 300), tensor('e', 0)],
      100,
    );
    expect(plan.shards.map(({ file }) => file)).toEqual([
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
    ]);
    const [first, second, third] = plan.shards.map(({ file }) => file);
    expect(describeIndex(plan)).toEqual({
      metadata: { total_size: 401 },
      weight_map: { a: first, b: first, c: second, d: third, e: third },
    });
  });

  it('put wide elements first, so that every tensor is aligned', () => {
    const wide = { name: 'w', dtype: 'I64', shape: [2], byteLength: 16 } as const;
    const [shard] = layOutShards([tensor('a', 3), wide]).shards;
    const places = shard!.layout.tensors.map(({ name, offset }) => [name, offset % 8]);
    expect(places).toEqual([
      ['', 0],
      ['w', 0],
      ['a', 0],
    ]);
  });
});
