import type { StoredFormat } from '../../graph/ir.js';

const BY_ACTIVATION = {
  int4: { none: 'wint4', int8: 'w4a8', e4m3: 'w4afp8' },
  int8: { none: 'wint8', int8: 'w8a8', e4m3: 'wint8:e4m3_activations' },
} as const;

const FP8_BY_ROWS = { 0: 'fp8_per_tensor', 1: 'fp8_per_channel', 128: 'block_wise_fp8' } as const;

/**
 * Name of the scheme that a stored format is: the canonical one where fdq has it; else that of the nearest and how it
 * differs, each difference after a colon.
 */
export function nameStoredScheme({ native, activation, columnOrder }: StoredFormat): string {
  const isStatic = activation === 'e4m3_static' || activation === 'int8_static';
  return [
    nameWeights(native, activation),
    ...(native.asymmetric === true ? ['asymmetric'] : []),
    ...(columnOrder === undefined ? [] : ['act-order']),
    ...(isStatic ? ['static'] : []),
  ].join(':');
}

function nameWeights(native: StoredFormat['native'], activation: StoredFormat['activation']): string {
  const { format, groupN, groupK } = native;
  if (format === 'e2m1') return 'nvfp4';
  const inputs = activation === 'none' ? 'none' : activation.startsWith('int8') ? 'int8' : 'e4m3';
  if (format !== 'e4m3') return `${BY_ACTIVATION[format][inputs]}${groupK === 0 ? '' : `:g${groupK}`}`;
  const base = FP8_BY_ROWS[groupN];
  if (inputs === 'none') return `${base}:weight-only`;
  const isUsual = groupN === 128 ? activation === 'e4m3_group128' : activation !== 'e4m3_group128';
  return isUsual ? base : `${base}:${activation}`;
}
