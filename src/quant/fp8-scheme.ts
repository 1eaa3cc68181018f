import { ACTIVATIONS, E4M3_ERROR } from './activation.js';
import { decodeE4m3, encodeE4m3, E4M3_MAX } from './numerics/fp8.js';
import { scaleToMaximum } from './numerics/tiles.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';
import { createTileScheme } from './tile-scheme.js';
import type { TileScheme } from './tile-scheme.js';

/** Which weights share a scale, and which inputs. */
export interface Fp8Scheme extends Pick<QuantScheme, 'name' | 'aliases' | 'summary'> {
  readonly groupN: TileScheme['native']['groupN'];
  readonly groupK: number;
  readonly activation: keyof typeof ACTIVATIONS;
}

/** e4m3 weights, `encode(w / scale)` with scale = amax / 448, and inputs rounded to e4m3 while running. */
export function createFp8Family(spec: Fp8Scheme): SchemeFamily {
  const { name, aliases, summary, groupN, groupK } = spec;
  const scheme = createTileScheme({
    name,
    aliases,
    summary,
    activation: ACTIVATIONS[spec.activation],
    native: { format: 'e4m3', groupN, groupK },
    weight: { element: 'float8e4m3fn', maxError: E4M3_ERROR },
    findScale: scaleToMaximum(E4M3_MAX),
    encode: encodeE4m3,
    decode: decodeE4m3,
  });
  return Object.freeze({ name, variants: [scheme] as const });
}
