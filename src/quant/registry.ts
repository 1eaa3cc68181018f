import { blockWiseFp8 } from './block-wise-fp8.js';
import { fp8PerChannel } from './fp8-per-channel.js';
import { fp8PerTensor } from './fp8-per-tensor.js';
import { mxfp4 } from './mxfp4.js';
import { nvfp4 } from './nvfp4.js';
import { findScheme } from './scheme-names.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';
import { unquantized } from './unquantized.js';
import { w4a8 } from './w4a8.js';
import { w4afp8 } from './w4afp8.js';
import { w8a8 } from './w8a8.js';
import { wint2 } from './wint2.js';
import { wint4 } from './wint4.js';
import { wint8 } from './wint8.js';
import { wnf4 } from './wnf4.js';
import { wnf4a8 } from './wnf4a8.js';

/** Every scheme fdq has, in the order they are listed to users. */
export const SCHEME_FAMILIES: readonly SchemeFamily[] = [
  unquantized,
  wint8,
  wint4,
  wnf4,
  wint2,
  nvfp4,
  mxfp4,
  blockWiseFp8,
  fp8PerChannel,
  fp8PerTensor,
  w8a8,
  w4a8,
  w4afp8,
  wnf4a8,
];

/** Every scheme with every parameter it can have. */
export const SCHEMES: readonly QuantScheme[] = SCHEME_FAMILIES.flatMap(({ variants }) => variants);

/**
 * The scheme a name, an alias or a name with parameters (`wint4:g128`) means; case does not matter.
 * @throws UserError `unknown_scheme` with the list and the nearest name; UnsupportedError `unknown_scheme` for
 *   names of other programs that are no scheme of fdq.
 */
export function resolveScheme(text: string): QuantScheme {
  return findScheme(SCHEMES, text);
}
