import { describe, expect, it } from 'vitest';
import { FdqError, UnsupportedError } from '../../../src/errors.js';
import { createRandom } from '../../helpers/stored-formats.js';
import { openSample, sampleWeight, storedCase, SAMPLE_MODULE } from '../../helpers/stored-sample.js';
import type { StoredSampleFiles } from '../../helpers/stored-sample.js';
import type { TensorSpec } from '../../helpers/write-safetensors.js';

type Tensors = Readonly<Record<string, TensorSpec>>;
type Changes = Readonly<Record<string, unknown>>;

const N = 32;
const K = 64;

function sample(name: string): StoredSampleFiles {
  const { config, file, write } = storedCase(name);
  return { config, file, tensors: write(N, K, createRandom(1)).tensors };
}

function without(tensors: Tensors, suffix: string): Tensors {
  return Object.fromEntries(Object.entries(tensors).filter(([name]) => name !== suffix));
}

async function failureOf(files: StoredSampleFiles): Promise<FdqError> {
  try {
    await openSample(files);
  } catch (error) {
    if (error instanceof FdqError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

const GPTQ = 'gptq v1, 4 bits, zero points';
const ACT_ORDER = 'gptq v1, act-order';
const FP8 = 'fp8, one scale, static';
const TILES = 'fp8, tiles';
const PACKED = 'pack-quantized, zero points';
const INT8 = 'int-quantized';
const NVFP4 = 'modelopt NVFP4';

describe('fields of a quantization config that are not loaded are refused by name', () => {
  it.each<[string, Changes, string]>([
    [GPTQ, { bits: 3 }, 'quantization_config.bits is 3; fdq loads gptq checkpoints with 4 or 8'],
    [GPTQ, { bits: undefined }, 'quantization_config.bits is absent'],
    [GPTQ, { bits: 8 }, 'sym is false; fdq loads gptq checkpoints with true where bits is 8'],
    [
      GPTQ,
      { group_size: 16 },
      'quantization_config.group_size is 16; fdq loads gptq checkpoints with -1 or a multiple of 32',
    ],
    [GPTQ, { checkpoint_format: 'marlin' }, 'quantization_config.checkpoint_format is "marlin"'],
    [GPTQ, { pack_dtype: 'int16' }, 'quantization_config.pack_dtype is "int16"'],
    [GPTQ, { is_marlin_format: true }, 'quantization_config.is_marlin_format is true'],
    [
      GPTQ,
      { dynamic: { '-:lm_head': {}, '+:.*down.*': { bits: 8 } } },
      'quantizes "+:.*down.*" in another way',
    ],
    ['awq', { bits: 8 }, 'quantization_config.bits is 8; fdq loads awq checkpoints with 4'],
    [
      'awq',
      { version: 'GEMV' },
      'quantization_config.version is "GEMV"; fdq loads awq checkpoints with "gemm"',
    ],
    ['awq', { zero_point: false }, 'quantization_config.zero_point is false'],
    [FP8, { fmt: 'e5m2' }, 'quantization_config.fmt is "e5m2"'],
    [FP8, { activation_scheme: 'token' }, 'quantization_config.activation_scheme is "token"'],
    [TILES, { weight_block_size: [64, 64] }, 'quantization_config.weight_block_size is [64,64]'],
    [TILES, { activation_scheme: 'static' }, 'activation_scheme is "static"'],
    [INT8, { quantization_status: 'frozen' }, 'quantization_config.quantization_status is "frozen"'],
    [
      INT8,
      { sparsity_config: { format: 'sparse-24-bitmask' } },
      'sparsity_config.format is "sparse-24-bitmask"',
    ],
    [INT8, { transform_config: { config_groups: {} } }, 'transform_config rotates activations'],
    [INT8, { format: 'marlin-24' }, 'quantization_config.format is "marlin-24"'],
    [INT8, { format: 'mxfp4-pack-quantized' }, 'float-quantized, naive-quantized, nvfp4-pack-quantized'],
  ])('%s with %j', async (name, changes, message) => {
    const { config, ...rest } = sample(name);
    const error = await failureOf({ ...rest, config: { ...config, ...changes } });
    expect(error).toBeInstanceOf(UnsupportedError);
    expect(error.code).toBe('unsupported_model');
    expect(error.message).toContain(message);
    expect(error.suggestions).not.toEqual([]);
  });

  it.each<[Changes, Changes | undefined, string]>([
    [{ num_bits: 2 }, undefined, 'group_0.weights.num_bits is 2'],
    [{ strategy: 'block' }, undefined, 'group_0.weights.strategy is "block"'],
    [{ actorder: 'random' }, undefined, 'group_0.weights.actorder is "random"'],
    [{ type: 'float' }, undefined, 'group_0.weights.type is "float"'],
    [
      { num_bits: 8 },
      undefined,
      'group_0.weights.symmetric is false; fdq loads compressed-tensors checkpoints',
    ],
    [
      {},
      { num_bits: 8, type: 'int', strategy: 'token', dynamic: true, symmetric: false },
      'input_activations.symmetric',
    ],
    [
      {},
      { num_bits: 4, type: 'int', strategy: 'token', dynamic: true },
      'group_0.input_activations.num_bits is 4',
    ],
    [
      {},
      { num_bits: 8, type: 'int', strategy: 'token', dynamic: false },
      'group_0.input_activations.strategy is "token"',
    ],
  ])('compressed-tensors weights %j, inputs %j', async (weights, input, message) => {
    const files = sample(PACKED);
    const [group] = Object.values(files.config['config_groups'] as Record<string, Record<string, object>>);
    const group_0 = {
      ...group,
      weights: { ...group!['weights'], ...weights },
      input_activations: input ?? null,
    };
    const error = await failureOf({ ...files, config: { ...files.config, config_groups: { group_0 } } });
    expect(error).toMatchObject({ code: 'unsupported_model' });
    expect(error.message).toContain(message);
  });

  it.each<[Changes, string]>([
    [{ quant_algo: 'W4A16_AWQ' }, 'hf_quant_config.json.quantization.quant_algo is "W4A16_AWQ"'],
    [
      { quant_algo: 'MIXED_PRECISION' },
      'with "FP8" or "FP8_PER_CHANNEL_PER_TOKEN" or "NVFP4" or "W4A16_NVFP4"',
    ],
    [{ group_size: 32 }, 'hf_quant_config.json.quantization.group_size is 32'],
  ])('modelopt %j', async (changes, message) => {
    const files = sample(NVFP4);
    const quantization = { ...(files.config['quantization'] as Changes), ...changes };
    const error = await failureOf({ ...files, config: { quantization } });
    expect(error).toMatchObject({ code: 'unsupported_model' });
    expect(error.message).toContain(message);
  });
});

describe('tensors that are not what the config says are refused by name', () => {
  it.each([
    [GPTQ, 'scales'],
    [GPTQ, 'qzeros'],
    [ACT_ORDER, 'g_idx'],
    ['awq', 'qzeros'],
    [FP8, 'weight_scale'],
    [FP8, 'input_scale'],
    [TILES, 'weight_scale_inv'],
    [PACKED, 'weight_shape'],
    [PACKED, 'weight_zero_point'],
    ['pack-quantized, act-order', 'weight_g_idx'],
    [INT8, 'weight_scale'],
    [NVFP4, 'weight_scale'],
    [NVFP4, 'weight_scale_2'],
  ])('%s without %s', async (name, suffix) => {
    const files = sample(name);
    const scaleName = name === FP8 && suffix === 'weight_scale' ? 'weight_scale_inv' : suffix;
    const error = await failureOf({ ...files, tensors: without(files.tensors, suffix) });
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toContain(`Expected tensor "${SAMPLE_MODULE}.${scaleName}"`);
    expect(error.message).toContain('the checkpoint does not have it');
  });

  it.each<[string, Tensors, string]>([
    [
      GPTQ,
      { scales: { dtype: 'F16', shape: [2, N] } },
      '.scales" to have shape [1, 32] but the checkpoint has [2, 32]',
    ],
    [
      GPTQ,
      { scales: { dtype: 'I32', shape: [1, N] } },
      '.scales" to be of type F32 or F16 or BF16 but the checkpoint has I32',
    ],
    [GPTQ, { qweight: { dtype: 'I32', shape: [8] } }, '.qweight" to be a matrix'],
    [GPTQ, { qzeros: { dtype: 'I32', shape: [1, 5] } }, '.qzeros" to have shape [1, 4]'],
    [TILES, { weight_scale_inv: { dtype: 'F32', shape: [1, 2] } }, '.weight_scale_inv" to have shape [1, 1]'],
    [FP8, { weight: { dtype: 'BF16', shape: [N, K] } }, 'has weight_scale, but its weight is stored as BF16'],
    [
      INT8,
      { weight: { dtype: 'F8_E4M3', shape: [N, K] } },
      '.weight" to be of type I8 but the checkpoint has F8_E4M3',
    ],
    [INT8, { weight_zero_point: { dtype: 'I8', shape: [N, 1] } }, 'says that its weights are symmetric'],
    [PACKED, { weight_packed: { dtype: 'I32', shape: [N, 9] } }, '.weight_packed" to have shape [32, 8]'],
    [NVFP4, { weight: { dtype: 'U8', shape: [N, 12] } }, 'has 24 columns, which are no whole blocks of 16'],
    [NVFP4, { pre_quant_scale: { dtype: 'BF16', shape: [K] } }, 'has a pre_quant_scale (NVFP4_AWQ)'],
  ])('%s with %j', async (name, changes, message) => {
    const files = sample(name);
    const error = await failureOf({ ...files, tensors: { ...files.tensors, ...changes } });
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toContain(message);
  });

  it.each<[string, (groups: Int32Array) => void, string]>([
    ['out of range', (groups) => (groups[5] = 9), 'g_idx[5] = 9, which is not one of its 2 groups'],
    ['negative', (groups) => (groups[0] = -1), 'g_idx[0] = -1'],
    ['uneven', (groups) => groups.fill(0), 'more columns in group 0 of g_idx than the 32 of a group'],
  ])('g_idx that is %s', async (_, spoil, message) => {
    const files = sample(ACT_ORDER);
    const groups = Int32Array.from({ length: K }, (__, column) => column % 2);
    spoil(groups);
    const g_idx = { dtype: 'I32', shape: [K], data: new Uint8Array(groups.buffer) };
    const error = await failureOf({ ...files, tensors: { ...files.tensors, g_idx } });
    expect(error).toMatchObject({ code: 'invalid_checkpoint', param: SAMPLE_MODULE });
    expect(error.message).toContain(message);
  });

  it.each([0, -1, NaN, Infinity])('an input scale of %d', async (value) => {
    const files = sample(FP8);
    const input_scale = { dtype: 'F32', shape: [], data: new Uint8Array(Float32Array.of(value).buffer) };
    const error = await failureOf({ ...files, tensors: { ...files.tensors, input_scale } });
    expect(error.message).toContain(`.input_scale" to be a positive number but it is ${value}`);
  });

  it.each([
    [FP8, { modules_to_not_convert: [SAMPLE_MODULE] }],
    [FP8, { ignored_layers: ['model.layers.0'] }],
    [INT8, { ignore: ['re:.*up_proj'] }],
    ['modelopt FP8 a row', { ignore: ['model.layers.*.mlp*'] }],
  ])('%s that is quantized though the config says otherwise: %j', async (name, changes) => {
    const files = sample(name);
    const error = await failureOf({ ...files, config: { ...files.config, ...changes } });
    expect(error).toMatchObject({ code: 'invalid_checkpoint', param: SAMPLE_MODULE });
    expect(error.message).toMatch(/is stored/);
  });

  it('a module that no group of the config is about', async () => {
    const files = sample(INT8);
    const [group] = Object.values(files.config['config_groups'] as Record<string, object>);
    const config_groups = { group_0: { ...group, targets: ['re:.*down_proj'] } };
    const error = await failureOf({ ...files, config: { ...files.config, config_groups } });
    expect(error.message).toContain('no group of quantization_config is about it');
  });

  it('a pattern that is no regular expression', async () => {
    const files = sample(INT8);
    const error = await failureOf({ ...files, config: { ...files.config, ignore: ['re:('] } });
    expect(error.message).toContain('"re:(" is none');
  });
});

describe('a quantized checkpoint', () => {
  it('warns of scales for the KV cache, which are not used', async () => {
    const files = sample(NVFP4);
    const quantization = { ...(files.config['quantization'] as Changes), kv_cache_quant_algo: 'FP8' };
    const scale = { dtype: 'F32', shape: [1] };
    const more = {
      'model.layers.0.self_attn.k_proj.k_scale': scale,
      'model.layers.0.self_attn.v_proj.v_scale': scale,
    };
    const checkpoint = await openSample({ ...files, config: { quantization }, more });
    expect(checkpoint.warnings).toEqual([expect.stringContaining('scales for a quantized KV cache')]);
    expect([...checkpoint.tensors.keys()].filter((name) => name.endsWith('_scale'))).toEqual([]);
    const [, ...others] = (await openSample({ ...files, more })).warnings;
    expect(others).toEqual([]);
  });

  it('leaves float modules as they are and gives equal formats one object', async () => {
    const { write, config } = storedCase(INT8);
    const { tensors } = write(N, K, createRandom(2));
    const down = Object.entries(tensors).map(([suffix, spec]) => [
      `model.layers.0.mlp.down_proj.${suffix}`,
      spec,
    ]);
    const more = {
      ...(Object.fromEntries(down) as Tensors),
      'model.layers.0.mlp.gate_proj.weight': { dtype: 'F16', shape: [N, K] },
    };
    const checkpoint = await openSample({ config, tensors, more });
    expect(checkpoint.quantMethod).toBe('compressed-tensors');
    const other = checkpoint.tensors.get('model.layers.0.mlp.down_proj.weight');
    expect(other?.stored?.format).toBe(sampleWeight(checkpoint).stored.format);
    expect(checkpoint.tensors.get('model.layers.0.mlp.gate_proj.weight')).not.toHaveProperty('stored');
    // lm_head.weight is BF16 and larger.
    expect(other).toMatchObject({ dtype: 'BF16', shape: [N, K] });
  });

  it('reads what AutoAWQ and AutoGPTQ write in files of their own', async () => {
    const awq = sample('awq');
    const names = { w_bit: 4, q_group_size: 32, version: 'GEMM', zero_point: true };
    const ofAwq = await openSample({ ...awq, config: names, file: 'quant_config.json' });
    expect(sampleWeight(ofAwq).stored.scheme).toBe('wint4:g32:asymmetric');
    const gptq = sample(GPTQ);
    const fields = { bits: 4, group_size: 64, sym: false, desc_act: false };
    const ofGptq = await openSample({ ...gptq, config: fields, file: 'quantize_config.json' });
    expect(sampleWeight(ofGptq).stored).toMatchObject({ method: 'gptq', scheme: 'wint4:g64:asymmetric' });
  });

  it('may lack g_idx where its columns are in order', async () => {
    const files = sample(GPTQ);
    const checkpoint = await openSample({ ...files, tensors: without(files.tensors, 'g_idx') });
    expect(sampleWeight(checkpoint).stored.format.columnOrder).toBeUndefined();
  });
});
