import { countGroups } from './stored-method.js';
import type { StoredMatrix } from './stored-method.js';
import type { StoredModule } from './stored-module.js';

const BLOCK = 16;

/**
 * NVFP4: e2m1 pairs, low nibble first, an e4m3 scale for 16 columns and one float32 scale for the tensor, which
 * ModelOpt stores as it is (`weight_scale_2`) and compressed-tensors as its reciprocal (`weight_global_scale`).
 * Activations stay as they are: CPUs have no FP4.
 */
export function describeNvfp4(
  module: StoredModule,
  names: { readonly codes: string; readonly tensorScale: string; readonly reciprocal: boolean },
): StoredMatrix {
  const { part: codes, size } = module.matrix(names.codes, ['U8'], [1, 2]);
  const [n, k] = size;
  if (k % BLOCK !== 0) throw module.refuse(`has ${k} columns, which are no whole blocks of ${BLOCK}`);
  const { shape: _shape, ...blockScales } = module.part('weight_scale', {
    dtypes: ['F8_E4M3'],
    shapes: [[n, countGroups(k, BLOCK)]],
  });
  const value = module.positiveScalar(names.tensorScale);
  const { part, type } = module.scales(names.tensorScale, [[], [1]]);
  return {
    n,
    k,
    format: {
      native: { format: 'e2m1', groupN: 0, groupK: 0, block: { columns: BLOCK, type: 'e4m3' } },
      activation: 'none',
    },
    parts: {
      codes: { ...codes, layout: 'rows', rowBytes: k / 2, offsetBinary: false },
      scales: { ...part, layout: 'tensor', type, reciprocal: names.reciprocal, value },
      blockScales,
    },
  };
}
