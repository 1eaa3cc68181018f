import { decodeNf4, encodeNf4 } from './numerics/nf4.js';
import { scaleToMaximum } from './numerics/tiles.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';
import { createTileScheme } from './tile-scheme.js';

/** Columns that share a scale, as in bitsandbytes. */
const GROUP = 64;
/** Half the widest gap between neighbouring values, the one from -1. */
const HALF_GAP = (decodeNf4(1) - decodeNf4(0)) / 2;

/**
 * NF4 weights of QLoRA (arXiv:2305.14314) in groups of 64 columns: scale = amax (1 where that is 0), code = the
 * value nearest to w / scale. Differs from bitsandbytes in that groups do not run on into the next row, and in
 * dividing by the scale rather than multiplying by its reciprocal; scales are float32 and not quantized again.
 */
export function createNf4Family(
  spec: Pick<QuantScheme, 'name' | 'aliases' | 'summary' | 'activation'>,
): SchemeFamily {
  const scheme = createTileScheme({
    ...spec,
    native: { format: 'nf4', groupN: 1, groupK: GROUP },
    weight: { element: 'nf4', maxError: { relative: 0, ofScale: HALF_GAP } },
    findScale: scaleToMaximum(1),
    encode: encodeNf4,
    decode: decodeNf4,
  });
  return Object.freeze({ name: spec.name, variants: [scheme] as const });
}
