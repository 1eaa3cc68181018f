import { UnsupportedError } from '../../errors.js';
import type { StoredFormat, StoredPart } from '../../graph/ir.js';
import { parseColumnOrder } from './column-order.js';
import type { ConfigFields } from './config-fields.js';
import { countGroups } from './stored-method.js';
import type { StoredMatrix, StoredMethod } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

const WORD_BITS = 32;

interface GptqConfig {
  readonly bits: 4 | 8;
  /** 0: one group a row. */
  readonly groupK: number;
  readonly symmetric: boolean;
  readonly actOrder: boolean;
  /** Version 1 stores zero points minus one. */
  readonly minusOne: boolean;
}

/**
 * GPTQ as AutoGPTQ, GPTQModel and transformers write it: int32 words along k, `qzeros` minus one in version 1,
 * `g_idx` with the group of each column. https://arxiv.org/abs/2210.17323
 *
 * A zero point of 0 minus one: GPTQModel (utils/model.py, convert_gptq_v1_to_v2_format_module and its inverse) adds and
 * subtracts 0x11111111 as whole words, so that 15 means 0 and has borrowed from the next; fdq does the same. Where no 0
 * is stored every reader agrees. Where one is, AutoGPTQ's qlinear_cuda_old and exllamav2 mask each zero point by itself
 * and vLLM's q_gemm.cu takes 16.
 */
export const gptq: StoredMethod = {
  name: 'gptq',

  parse(config) {
    const gptqConfig: GptqConfig = {
      bits: config.choose('bits', [4, 8] as const),
      groupK: config.groupSize('group_size'),
      symmetric: config.boolean('sym', true),
      actOrder: config.boolean('desc_act', false),
      minusOne: config.choose('checkpoint_format', ['gptq', 'gptq_v2'] as const, 'gptq') === 'gptq',
    };
    config.choose('pack_dtype', ['int32'], 'int32');
    config.choose('is_marlin_format', [false], false);
    // int8 kernels take no zero points.
    if (gptqConfig.bits === 8 && !gptqConfig.symmetric)
      throw config.unsupported('sym', 'true where bits is 8');
    refuseOverrides(config);
    return {
      valueSuffixes: ['g_idx'],
      warnings: [],
      describe: (module) => (module.peek('qweight') === undefined ? undefined : describe(module, gptqConfig)),
    };
  },
};

/** GPTQModel's `dynamic`: `-:pattern` leaves modules unquantized, anything else quantizes them in another way. */
function refuseOverrides(config: ConfigFields): void {
  const pattern = config
    .object('dynamic')
    ?.keys()
    .find((key) => !key.startsWith('-:'));
  if (pattern !== undefined) {
    throw new UnsupportedError(
      'unsupported_model',
      `quantization_config.dynamic quantizes "${pattern}" in another way than the rest; fdq loads gptq checkpoints ` +
        'with one setting for all quantized layers.',
      {
        param: 'quantization_config.dynamic',
        suggestions: [
          'Use the unquantized checkpoint this one was made from: fdq quantizes it while loading.',
        ],
      },
    );
  }
}

function describe(module: StoredModule, config: GptqConfig): StoredMatrix {
  const { bits, groupK, symmetric } = config;
  const perWord = WORD_BITS / bits;
  const { part, size } = module.matrix('qweight', ['I32'], [perWord, 1]);
  const [k, n] = size;
  const groups = countGroups(k, groupK);
  const scales = module.scales('scales', [[groups, n]]);
  const zeros = readZeros(module, [groups, Math.ceil(n / perWord)]);
  const columnOrder = readOrder(module, { k, groupK, required: config.actOrder });
  const native: StoredFormat['native'] = {
    format: bits === 4 ? 'int4' : 'int8',
    groupN: 1,
    groupK,
    ...(symmetric ? {} : { asymmetric: true as const }),
  };
  return {
    n,
    k,
    format: { native, activation: 'none', ...(columnOrder === undefined ? {} : { columnOrder }) },
    parts: {
      codes: { ...part, layout: 'gptq', rowBytes: 0, offsetBinary: true },
      scales: { ...scales.part, layout: 'columns', type: scales.type, reciprocal: false },
      zeroPoints: { ...zeros, layout: 'gptq', minusOne: config.minusOne },
    },
  };
}

function readZeros(module: StoredModule, shape: readonly number[]): StoredPart {
  const { name, file, offset, byteLength } = module.part('qzeros', { dtypes: ['I32'], shapes: [shape] });
  return { name, file, offset, byteLength };
}

/** Without act-order old files may lack g_idx: columns are in order then. */
function readOrder(
  module: StoredModule,
  { k, groupK, required }: { readonly k: number; readonly groupK: number; readonly required: boolean },
): Int32Array | undefined {
  if (!required && module.peek('g_idx') === undefined) return undefined;
  return parseColumnOrder(module, 'g_idx', { k, groupK });
}
