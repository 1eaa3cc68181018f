import type { StoredFormat, StoredPart, StoredParts } from '../../graph/ir.js';
import { parseColumnOrder } from './column-order.js';
import type { CompressedScheme } from './compressed-scheme.js';
import { describeNvfp4 } from './nvfp4.js';
import { countGroups } from './stored-method.js';
import type { StoredMatrix } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

export const VALUE_SUFFIXES = ['input_scale', 'weight_shape', 'weight_g_idx', 'weight_global_scale'] as const;

const WORD_BITS = 32;
const WORD_BYTES = 4;
const TILE = 128;

/** A module of a compressed-tensors checkpoint, by the scheme of its group. */
export function describeCompressed(module: StoredModule, scheme: CompressedScheme): StoredMatrix {
  switch (scheme.format) {
    case 'pack-quantized':
      return describePacked(module, scheme);
    case 'nvfp4-pack-quantized':
      return describeFp4(module);
    case 'float-quantized':
    case 'int-quantized':
    case 'naive-quantized':
      return describeBytes(module, scheme);
  }
}

function describeFp4(module: StoredModule): StoredMatrix {
  const names = { codes: 'weight_packed', tensorScale: 'weight_global_scale', reciprocal: true };
  const matrix = describeNvfp4(module, names);
  module.takeIfThere('input_global_scale');
  return matrix;
}

/** int32 words along k, codes and zero points offset by the middle of the range. */
function describePacked(module: StoredModule, scheme: CompressedScheme): StoredMatrix {
  const { bits, groupK, symmetric } = scheme.weights;
  const perWord = WORD_BITS / bits;
  const [n, k] = readShape(module);
  const words = Math.ceil(k / perWord);
  const { shape: _shape, ...codes } = module.part('weight_packed', { dtypes: ['I32'], shapes: [[n, words]] });
  const groups = countGroups(k, groupK);
  const scales = module.scales('weight_scale', groups === 1 ? [[n, 1], [n]] : [[n, groups]]);
  const zeros = readZeros(module, symmetric, [Math.ceil(n / perWord), groups]);
  const columnOrder = scheme.weights.actOrder
    ? parseColumnOrder(module, 'weight_g_idx', { k, groupK })
    : undefined;
  const native: StoredFormat['native'] = {
    format: bits === 4 ? 'int4' : 'int8',
    groupN: 1,
    groupK,
    ...(symmetric ? {} : { asymmetric: true as const }),
  };
  return {
    n,
    k,
    format: {
      native,
      ...activationOf(module, scheme),
      ...(columnOrder === undefined ? {} : { columnOrder }),
    },
    parts: {
      codes: { ...codes, layout: 'rows', rowBytes: WORD_BYTES * words, offsetBinary: true },
      scales: { ...scales.part, layout: 'rows', type: scales.type, reciprocal: false },
      ...(zeros === undefined ? {} : { zeroPoints: { ...zeros, layout: 'packed_rows', minusOne: false } }),
    },
  };
}

/** Symmetric files have no zero points; older ones may, and then all are checked. */
function readZeros(
  module: StoredModule,
  symmetric: boolean,
  shape: readonly number[],
): StoredPart | undefined {
  if (symmetric && module.peek('weight_zero_point') === undefined) return undefined;
  const { name, file, offset, byteLength } = module.part('weight_zero_point', {
    dtypes: ['I32'],
    shapes: [shape],
  });
  return { name, file, offset, byteLength };
}

function readShape(module: StoredModule): readonly [n: number, k: number] {
  module.part('weight_shape', { dtypes: ['I64', 'I32'], shapes: [[2]] });
  const [n = 0, k = 0] = module.integers('weight_shape');
  if (n < 1 || k < 1 || !Number.isSafeInteger(n * k)) throw module.refuse(`has weight_shape [${n}, ${k}]`);
  return [n, k];
}

/** One code a byte. */
function describeBytes(module: StoredModule, scheme: CompressedScheme): StoredMatrix {
  const { strategy, type: codeType } = scheme.weights;
  const { part, size } = module.matrix('weight', [codeType === 'int' ? 'I8' : 'F8_E4M3']);
  const [n, k] = size;
  const shapes = {
    channel: [[n, 1], [n]],
    tensor: [[], [1]],
    block: [[Math.ceil(n / TILE), Math.ceil(k / TILE)]],
    group: [],
    tensor_group: [],
  };
  const { part: scalePart, type } = module.scales('weight_scale', shapes[strategy]);
  const layout = strategy === 'channel' ? 'rows' : strategy === 'block' ? 'tiles' : 'tensor';
  const parts: StoredParts = {
    codes: { ...part, layout: 'rows', rowBytes: k, offsetBinary: false },
    scales: { ...scalePart, layout, type, reciprocal: false },
  };
  refuseZeros(module);
  return { n, k, format: { native: nativeOfBytes(scheme.weights), ...activationOf(module, scheme) }, parts };
}

/** int8 has its one scale for each row: kernels know no int8 with one scale a tensor. */
function nativeOfBytes({ type, strategy }: CompressedScheme['weights']): StoredFormat['native'] {
  if (type === 'int') return { format: 'int8', groupN: 1, groupK: 0 };
  if (strategy === 'block') return { format: 'e4m3', groupN: TILE, groupK: TILE };
  return { format: 'e4m3', groupN: strategy === 'tensor' ? 0 : 1, groupK: 0 };
}

function refuseZeros(module: StoredModule): void {
  if (module.peek('weight_zero_point') === undefined) return;
  throw module.refuse(
    'has weight_zero_point, though quantization_config says that its weights are symmetric',
  );
}

function activationOf(
  module: StoredModule,
  { activation }: CompressedScheme,
): Pick<StoredFormat, 'activation' | 'activationScale'> {
  if (activation !== 'e4m3_static' && activation !== 'int8_static') return { activation };
  return { activation, activationScale: module.positiveScalar('input_scale') };
}
