import { UnsupportedError } from '../../errors.js';
import type { StoredFormat } from '../../graph/ir.js';
import type { ConfigFields } from './config-fields.js';

/** What one group of a compressed-tensors config says of its modules. */
export interface CompressedScheme {
  readonly format: CompressedFormat;
  readonly weights: CompressedWeights;
  readonly activation: Activation;
}

export interface CompressedWeights {
  readonly type: 'int' | 'float';
  readonly bits: 4 | 8;
  readonly strategy: 'tensor' | 'channel' | 'group' | 'block' | 'tensor_group';
  /** 0: all columns. */
  readonly groupK: number;
  readonly symmetric: boolean;
  /** Columns of a group are anywhere, `weight_g_idx` says where. */
  readonly actOrder: boolean;
}

/** A rule, or the static one whose scale is tensor `input_scale`. */
type Activation = Extract<
  StoredFormat['activation'],
  'none' | 'e4m3_group128' | 'e4m3_token' | 'int8_token' | 'e4m3_static' | 'int8_static'
>;

const FORMATS = [
  'pack-quantized',
  'int-quantized',
  'float-quantized',
  'naive-quantized',
  'nvfp4-pack-quantized',
] as const;

export type CompressedFormat = (typeof FORMATS)[number];

const TILE = 128;
const NVFP4_GROUP = 16;

/** `format` is that of the whole checkpoint; a group may have its own. */
export function parseScheme(group: ConfigFields, format: string | undefined): CompressedScheme {
  const chosen = FORMATS.find((one) => one === (group.text('format') ?? format));
  if (chosen === undefined) throw refuseFormat(group.text('format') ?? format);
  if (group.get('output_activations') !== undefined)
    throw group.unsupported('output_activations', 'no quantized outputs');
  const weights = group.object('weights');
  if (weights === undefined) throw group.unsupported('weights', 'a weight scheme in every group');
  return { format: chosen, weights: parseWeights(weights, chosen), activation: parseActivation(group) };
}

function refuseFormat(format: string | undefined): UnsupportedError {
  return new UnsupportedError(
    'unsupported_model',
    `quantization_config.format is ${JSON.stringify(format ?? null)}; fdq loads compressed-tensors checkpoints with ${FORMATS.join(', ')}.`,
    {
      param: 'quantization_config.format',
      suggestions: ['Use the unquantized checkpoint this one was made from: fdq quantizes it while loading.'],
    },
  );
}

function parseWeights(weights: ConfigFields, format: CompressedFormat): CompressedWeights {
  weights.choose('dynamic', [false], false);
  switch (format) {
    case 'pack-quantized':
      return parsePacked(weights);
    case 'nvfp4-pack-quantized':
      weights.choose('group_size', [NVFP4_GROUP], NVFP4_GROUP);
      return {
        type: weights.choose('type', ['float'] as const, 'float'),
        bits: weights.choose('num_bits', [4] as const),
        strategy: weights.choose('strategy', ['tensor_group'] as const),
        groupK: 0,
        symmetric: weights.choose('symmetric', [true], true),
        actOrder: false,
      };
    case 'float-quantized':
      return parseEightBit(weights, ['float']);
    case 'int-quantized':
      return parseEightBit(weights, ['int']);
    case 'naive-quantized':
      return parseEightBit(weights, ['int', 'float']);
  }
}

function parsePacked(weights: ConfigFields): CompressedWeights {
  const bits = weights.choose('num_bits', [4, 8] as const);
  const symmetric =
    bits === 8 ? weights.choose('symmetric', [true], true) : weights.boolean('symmetric', true);
  const strategy = weights.choose('strategy', ['group', 'channel'] as const);
  const order = weights.get('actorder');
  // "weight" (or "static") reorders while quantizing and stores the columns in order.
  const actOrder = order === true || order === 'group' || order === 'dynamic';
  if (!actOrder && order !== undefined && order !== false && order !== 'weight' && order !== 'static') {
    throw weights.unsupported('actorder', '"group", "weight", "dynamic", "static" or null');
  }
  return {
    type: weights.choose('type', ['int'] as const, 'int'),
    bits,
    strategy,
    groupK: strategy === 'group' ? weights.groupSize('group_size') : 0,
    symmetric,
    actOrder,
  };
}

function parseEightBit(weights: ConfigFields, types: readonly ('int' | 'float')[]): CompressedWeights {
  const type = weights.choose('type', types, 'int');
  const strategy = weights.choose('strategy', ['channel', 'tensor', 'block'] as const);
  if (strategy === 'block') {
    weights.choose('type', ['float']);
    const size = weights.get('block_structure');
    const isTile = (Array.isArray(size) && size.join() === `${TILE},${TILE}`) || size === `${TILE}x${TILE}`;
    if (!isTile) throw weights.unsupported('block_structure', `[${TILE}, ${TILE}]`);
  }
  return {
    type,
    bits: weights.choose('num_bits', [8] as const, 8),
    strategy,
    groupK: 0,
    symmetric: weights.choose('symmetric', [true], true),
    actOrder: false,
  };
}

/** Dynamic scales are one a token, also where the config says one for all tokens: a batch must not change a result. */
function parseActivation(group: ConfigFields): Activation {
  const input = group.object('input_activations');
  if (input === undefined) return 'none';
  input.choose('symmetric', [true], true);
  const type = input.choose('type', ['int', 'float'] as const, 'int');
  const bits = input.choose('num_bits', type === 'float' ? ([4, 8] as const) : ([8] as const), 8);
  if (bits === 4) return 'none';
  const strategies =
    type === 'float' ? (['token', 'tensor', 'group'] as const) : (['token', 'tensor'] as const);
  const strategy = input.choose<'token' | 'tensor' | 'group'>('strategy', strategies);
  if (input.boolean('dynamic', false)) {
    if (strategy !== 'group') return type === 'float' ? 'e4m3_token' : 'int8_token';
    input.choose('group_size', [TILE]);
    return 'e4m3_group128';
  }
  input.choose('strategy', ['tensor']);
  return type === 'float' ? 'e4m3_static' : 'int8_static';
}
