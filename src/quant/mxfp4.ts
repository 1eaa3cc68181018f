import { createBlockScheme } from './block-scheme.js';
import { decodeE8m0, encodeE8m0, floorLog2 } from './numerics/e8m0.js';
import { decodeE2m1, encodeE2m1 } from './numerics/fp4.js';
import { absoluteMaximum } from './numerics/tiles.js';
import type { SchemeFamily } from './scheme.js';

const GROUP = 32;
/** Exponent of the largest e2m1 value, 6 = 1.5 * 2^2. */
const MAX_EXPONENT = 2;

/**
 * MXFP4 of the OCP Microscaling Formats specification 1.0: e2m1 weights with a power of two for 32 columns,
 * 2^(floor(log2(amax)) - 2), so that up to a quarter of the largest magnitude may saturate (section 6.3). An
 * all-zero block has scale 1.
 */
export const mxfp4: SchemeFamily = Object.freeze({
  name: 'mxfp4',
  variants: [
    createBlockScheme({
      name: 'mxfp4',
      aliases: [],
      summary: 'e2m1 weights, one power of two for 32 inputs',
      native: { format: 'e2m1', groupN: -1, groupK: 0, block: { columns: GROUP, type: 'e8m0' } },
      weight: { element: 'float4e2m1', maxError: { relative: 0.25, ofScale: 0.25 } },
      online: true,
      findScale: (values) => {
        const amax = absoluteMaximum(values);
        return encodeE8m0(amax === 0 ? 0 : floorLog2(amax) - MAX_EXPONENT);
      },
      decodeScale: decodeE8m0,
      encode: encodeE2m1,
      decode: decodeE2m1,
    }),
  ] as const,
});
