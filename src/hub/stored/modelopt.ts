import type { ConfigFields } from './config-fields.js';
import { describeFp8, fp8Activation, isFp8Module } from './fp8.js';
import { matchesModule } from './ignored-modules.js';
import { describeNvfp4 } from './nvfp4.js';
import { KV_SCALES_WARNING } from './stored-method.js';
import type { StoredMatrix, StoredMethod } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

/** How a module of each algorithm is stored; undefined when it is not. */
const ALGORITHMS = {
  FP8: (module) =>
    isFp8Module(module)
      ? describeFp8(module, {
          scale: 'weight_scale',
          perRow: false,
          activation: fp8Activation(module, 'input_scale'),
        })
      : undefined,
  FP8_PER_CHANNEL_PER_TOKEN: (module) =>
    isFp8Module(module)
      ? describeFp8(module, {
          scale: 'weight_scale',
          perRow: true,
          activation: fp8Activation(module, undefined),
        })
      : undefined,
  NVFP4: describeFp4,
  W4A16_NVFP4: describeFp4,
} as const satisfies Record<string, (module: StoredModule) => StoredMatrix | undefined>;

type Algorithm = keyof typeof ALGORITHMS;

const NAMES = Object.keys(ALGORITHMS) as readonly Algorithm[];
const NVFP4_GROUP = 16;

/**
 * NVIDIA ModelOpt: `hf_quant_config.json` (fields under `quantization`) or config.json (the same fields at the top, and
 * `ignore` for `exclude_modules`).
 */
export const modelopt: StoredMethod = {
  name: 'modelopt',

  parse(config) {
    const fields = config.object('quantization') ?? config;
    const algorithm = fields.choose<Algorithm>('quant_algo', NAMES);
    if (algorithm === 'NVFP4' || algorithm === 'W4A16_NVFP4')
      fields.choose('group_size', [NVFP4_GROUP], NVFP4_GROUP);
    const excluded = [...fields.texts('exclude_modules'), ...fields.texts('ignore')];
    return {
      valueSuffixes: ['input_scale', 'weight_scale_2'],
      warnings: hasKvScales(fields) ? [KV_SCALES_WARNING] : [],
      describe: (module) => {
        const matrix = ALGORITHMS[algorithm](module);
        if (matrix !== undefined && matchesModule(module.name, excluded)) {
          throw module.refuse(`is stored as ${algorithm}, though the quantization config excludes it`);
        }
        return matrix;
      },
    };
  },
};

function hasKvScales(fields: ConfigFields): boolean {
  return fields.get('kv_cache_quant_algo') !== undefined || fields.get('kv_cache_scheme') !== undefined;
}

/** @throws UserError for the input scales of NVFP4_AWQ, which fdq does not apply. */
function describeFp4(module: StoredModule): StoredMatrix | undefined {
  if (module.peek('weight')?.dtype !== 'U8') return undefined;
  if (module.peek('pre_quant_scale') !== undefined) {
    throw module.refuse('has a pre_quant_scale (NVFP4_AWQ), which fdq does not apply');
  }
  const matrix = describeNvfp4(module, { codes: 'weight', tensorScale: 'weight_scale_2', reciprocal: false });
  module.takeIfThere('input_scale');
  return matrix;
}
