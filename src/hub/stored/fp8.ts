import type { StoredFormat, StoredParts } from '../../graph/ir.js';
import type { ConfigFields } from './config-fields.js';
import { matchesModule } from './ignored-modules.js';
import type { StoredMatrix, StoredMethod } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

const TILE = 128;
const INPUT_SCALES = ['input_scale', 'activation_scale'] as const;
const WEIGHT_SCALES = ['weight_scale_inv', 'weight_scale'] as const;

/**
 * `quant_method: fp8`: DeepSeek's 128 x 128 tiles (`weight_scale_inv`, a multiplier in spite of its name), and one
 * scale a tensor or a row (`weight_scale`, AutoFP8).
 */
export const fp8: StoredMethod = {
  name: 'fp8',

  parse(config) {
    if (config.lowerText('fmt', 'e4m3') !== 'e4m3') throw config.unsupported('fmt', '"e4m3"');
    const isStatic =
      config.choose('activation_scheme', ['dynamic', 'static'] as const, 'dynamic') === 'static';
    const isBlock = parseBlockSize(config);
    if (isBlock && isStatic)
      throw config.unsupported('activation_scheme', '"dynamic" where there is a weight_block_size');
    const ignored = [...config.texts('modules_to_not_convert'), ...config.texts('ignored_layers')];
    return {
      valueSuffixes: INPUT_SCALES,
      warnings: scaleWarnings(config),
      describe: (module) => {
        if (!isFp8Module(module)) return undefined;
        if (matchesModule(module.name, ignored)) {
          throw module.refuse('is stored as FP8, though quantization_config says that it is not quantized');
        }
        return isBlock ? describeTiles(module) : describePlain(module, isStatic);
      },
    };
  },
};

function parseBlockSize(config: ConfigFields): boolean {
  const size = config.get('weight_block_size');
  if (size === undefined) return false;
  if (Array.isArray(size) && size.length === 2 && size.every((side) => side === TILE)) return true;
  throw config.unsupported('weight_block_size', `[${TILE}, ${TILE}]`);
}

function scaleWarnings(config: ConfigFields): readonly string[] {
  if (config.lowerText('scale_fmt', 'float') !== 'ue8m0') return [];
  return [
    'The checkpoint asks for activation scales that are powers of two (scale_fmt ue8m0); fdq uses amax / 448, which is finer.',
  ];
}

/** @throws UserError `invalid_checkpoint` for scales beside a weight that is not FP8. */
export function isFp8Module(module: StoredModule): boolean {
  const weight = module.peek('weight');
  if (weight === undefined) return false;
  if (weight.dtype === 'F8_E4M3') return true;
  const scale = WEIGHT_SCALES.find((suffix) => module.peek(suffix) !== undefined);
  if (scale !== undefined)
    throw module.refuse(`has ${scale}, but its weight is stored as ${weight.dtype}, not as F8_E4M3`);
  return false;
}

function describeTiles(module: StoredModule): StoredMatrix {
  const { codes, n, k } = readCodes(module);
  const suffix =
    module.peek('weight_scale_inv') === undefined && module.peek('weight_scale') !== undefined
      ? 'weight_scale'
      : 'weight_scale_inv';
  const tiles = [Math.ceil(n / TILE), Math.ceil(k / TILE)];
  const { part, type } = module.scales(suffix, [tiles], ['F32', 'BF16', 'F16', 'F8_E8M0']);
  return {
    n,
    k,
    format: { native: { format: 'e4m3', groupN: TILE, groupK: TILE }, activation: 'e4m3_group128' },
    parts: { codes, scales: { ...part, layout: 'tiles', type, reciprocal: false } },
  };
}

/** One scale for a tensor or for each row, by the shape of the scales. */
function describePlain(module: StoredModule, isStatic: boolean): StoredMatrix {
  const suffix = module.peek('weight_scale') === undefined ? 'weight_scale_inv' : 'weight_scale';
  const perRow = (module.peek(suffix)?.shape[0] ?? 1) > 1;
  const input = isStatic ? inputScaleOf(module) : undefined;
  return describeFp8(module, { scale: suffix, perRow, activation: fp8Activation(module, input) });
}

function inputScaleOf(module: StoredModule): string {
  return INPUT_SCALES.find((suffix) => module.peek(suffix) !== undefined) ?? INPUT_SCALES[0];
}

type Activation = Pick<StoredFormat, 'activation' | 'activationScale'>;

/** Static with the scale of tensor `input`, else one scale a token. */
export function fp8Activation(module: StoredModule, input: string | undefined): Activation {
  return input === undefined
    ? { activation: 'e4m3_token' }
    : { activation: 'e4m3_static', activationScale: module.positiveScalar(input) };
}

/** FP8 codes with one scale for the tensor or for each row. */
export function describeFp8(
  module: StoredModule,
  {
    scale,
    perRow,
    activation,
  }: { readonly scale: string; readonly perRow: boolean; readonly activation: Activation },
): StoredMatrix {
  const { codes, n, k } = readCodes(module);
  const { part, type } = module.scales(scale, perRow ? [[n], [n, 1]] : [[], [1], [1, 1]]);
  return {
    n,
    k,
    format: { native: { format: 'e4m3', groupN: perRow ? 1 : 0, groupK: 0 }, ...activation },
    parts: { codes, scales: { ...part, layout: perRow ? 'rows' : 'tensor', type, reciprocal: false } },
  };
}

function readCodes(module: StoredModule): {
  readonly codes: StoredParts['codes'];
  readonly n: number;
  readonly k: number;
} {
  const { part, size } = module.matrix('weight', ['F8_E4M3']);
  const [n, k] = size;
  return { n, k, codes: { ...part, layout: 'rows', rowBytes: k, offsetBinary: false } };
}
