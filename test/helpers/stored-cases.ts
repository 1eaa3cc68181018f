/** One case for each way a checkpoint may store its weights. */
import { bytesCase, nvfp4Case } from './stored-bytes.js';
import { awqCase, compressed, gptqCase, packedCase } from './stored-formats.js';
import type { StoredCase } from './stored-formats.js';

const TOKEN = { num_bits: 8, symmetric: true, strategy: 'token', dynamic: true };
const STATIC = { num_bits: 8, symmetric: true, strategy: 'tensor', dynamic: false };
const BYTE = { num_bits: 8, symmetric: true };
const MODELOPT_FILE = 'hf_quant_config.json';
const NVFP4 = { num_bits: 4, type: 'float', symmetric: true, strategy: 'tensor_group', group_size: 16 };

export const STORED_CASES: readonly StoredCase[] = [
  gptqCase('gptq v1, 4 bits, symmetric', 'wint4:g32', { bits: 4, group: 32, symmetric: true, version: 1 }),
  gptqCase('gptq v1, 4 bits, zero points', 'wint4:g64:asymmetric', {
    bits: 4,
    group: 64,
    symmetric: false,
    version: 1,
  }),
  gptqCase('gptq v2, 4 bits, zero points', 'wint4:g32:asymmetric', {
    bits: 4,
    group: 32,
    symmetric: false,
    version: 2,
    dtype: 'BF16',
  }),
  gptqCase('gptq v1, act-order', 'wint4:g32:asymmetric:act-order', {
    bits: 4,
    group: 32,
    symmetric: false,
    version: 1,
    actOrder: true,
  }),
  gptqCase('gptq, one group a row', 'wint4', { bits: 4, group: -1, symmetric: true, version: 2 }),
  gptqCase('gptq v1, 8 bits', 'wint8:g128', { bits: 8, group: 128, symmetric: true, version: 1 }),
  gptqCase('gptq v2, 8 bits, act-order', 'wint8:g32:act-order', {
    bits: 8,
    group: 32,
    symmetric: true,
    version: 2,
    actOrder: true,
    dtype: 'F32',
  }),
  awqCase('awq', 'wint4:g32:asymmetric', 32),
  awqCase('awq, one group a row', 'wint4:asymmetric', -1),
  packedCase('pack-quantized', 'wint4:g32', { bits: 4, group: 32, symmetric: true }),
  packedCase('pack-quantized, zero points', 'wint4:g64:asymmetric', {
    bits: 4,
    group: 64,
    symmetric: false,
    dtype: 'F16',
  }),
  packedCase('pack-quantized, act-order', 'wint4:g32:act-order', {
    bits: 4,
    group: 32,
    symmetric: true,
    actOrder: true,
  }),
  packedCase('pack-quantized, 8 bits, rows', 'wint8', { bits: 8, group: -1, symmetric: true, dtype: 'F32' }),
  packedCase('pack-quantized, int8 inputs', 'w4a8:g128', {
    bits: 4,
    group: 128,
    symmetric: true,
    input: { ...TOKEN, type: 'int' },
    activation: 'int8_token',
  }),
  packedCase('pack-quantized, fp8 inputs', 'w4afp8:g128', {
    bits: 4,
    group: 128,
    symmetric: true,
    input: { ...TOKEN, type: 'float' },
    activation: 'e4m3_token',
  }),
  bytesCase(
    'int-quantized',
    ['w8a8', 'int8_token'],
    compressed('int-quantized', { ...BYTE, type: 'int', strategy: 'channel' }, { ...TOKEN, type: 'int' }),
    { element: 'I8', geometry: 'channel' },
  ),
  bytesCase(
    'int-quantized, static, one scale',
    ['w8a8:static', 'int8_static'],
    compressed('int-quantized', { ...BYTE, type: 'int', strategy: 'tensor' }, { ...STATIC, type: 'int' }),
    { element: 'I8', geometry: 'tensor', input: 'input_scale' },
  ),
  bytesCase(
    'float-quantized',
    ['fp8_per_channel', 'e4m3_token'],
    compressed(
      'float-quantized',
      { ...BYTE, type: 'float', strategy: 'channel' },
      { ...TOKEN, type: 'float' },
    ),
    { element: 'F8_E4M3', geometry: 'channel', dtype: 'F32' },
  ),
  bytesCase(
    'float-quantized, weights only',
    ['fp8_per_channel:weight-only', 'none'],
    compressed('float-quantized', { ...BYTE, type: 'float', strategy: 'channel' }),
    { element: 'F8_E4M3', geometry: 'channel' },
  ),
  bytesCase(
    'float-quantized, static',
    ['fp8_per_tensor:static', 'e4m3_static'],
    compressed(
      'float-quantized',
      { ...BYTE, type: 'float', strategy: 'tensor' },
      { ...STATIC, type: 'float' },
    ),
    { element: 'F8_E4M3', geometry: 'tensor', input: 'input_scale' },
  ),
  bytesCase(
    'float-quantized, tiles',
    ['block_wise_fp8', 'e4m3_group128'],
    compressed(
      'float-quantized',
      { ...BYTE, type: 'float', strategy: 'block', block_structure: [128, 128] },
      { ...TOKEN, type: 'float', strategy: 'group', group_size: 128 },
    ),
    { element: 'F8_E4M3', geometry: 'tiles' },
  ),
  bytesCase(
    'fp8, tiles',
    ['block_wise_fp8', 'e4m3_group128'],
    { quant_method: 'fp8', weight_block_size: [128, 128] },
    { element: 'F8_E4M3', geometry: 'tiles', scaleName: 'weight_scale_inv', dtype: 'F32' },
  ),
  bytesCase(
    'fp8, one scale, dynamic',
    ['fp8_per_tensor', 'e4m3_token'],
    { quant_method: 'fp8', activation_scheme: 'dynamic' },
    { element: 'F8_E4M3', geometry: 'tensor', dtype: 'F32', scaleShape: () => [] },
  ),
  bytesCase(
    'fp8, one scale, static',
    ['fp8_per_tensor:static', 'e4m3_static'],
    { quant_method: 'fp8', activation_scheme: 'static' },
    { element: 'F8_E4M3', geometry: 'tensor', dtype: 'F32', input: 'input_scale' },
  ),
  bytesCase(
    'modelopt FP8',
    ['fp8_per_tensor:static', 'e4m3_static'],
    {
      producer: { name: 'modelopt' },
      quantization: { quant_algo: 'FP8', kv_cache_quant_algo: null, exclude_modules: ['lm_head'] },
    },
    {
      element: 'F8_E4M3',
      geometry: 'tensor',
      dtype: 'F32',
      scaleShape: () => [],
      input: 'input_scale',
      file: MODELOPT_FILE,
    },
  ),
  bytesCase(
    'modelopt FP8 a row',
    ['fp8_per_channel', 'e4m3_token'],
    { quant_method: 'modelopt', quant_algo: 'FP8_PER_CHANNEL_PER_TOKEN' },
    { element: 'F8_E4M3', geometry: 'channel', dtype: 'F32', scaleShape: (n) => [n] },
  ),
  nvfp4Case(
    'modelopt NVFP4',
    { quantization: { quant_algo: 'NVFP4', group_size: 16, exclude_modules: ['lm_head'] } },
    { codes: 'weight', tensorScale: 'weight_scale_2', reciprocal: false, file: MODELOPT_FILE },
  ),
  nvfp4Case(
    'nvfp4-pack-quantized',
    compressed('nvfp4-pack-quantized', NVFP4, {
      num_bits: 4,
      type: 'float',
      strategy: 'tensor_group',
      group_size: 16,
      dynamic: 'local',
      symmetric: true,
    }),
    { codes: 'weight_packed', tensorScale: 'weight_global_scale', reciprocal: true },
  ),
];
