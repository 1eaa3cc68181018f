import { blockWiseFp8 } from './block-wise-fp8.js';
import { findScheme } from './scheme-names.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';
import { unquantized } from './unquantized.js';
import { wint4 } from './wint4.js';
import { wint8 } from './wint8.js';

/** Every scheme fdq has, in the order they are listed to users. */
export const SCHEME_FAMILIES: readonly SchemeFamily[] = [unquantized, wint8, wint4, blockWiseFp8];

/** Every scheme with every parameter it can have. */
export const SCHEMES: readonly QuantScheme[] = SCHEME_FAMILIES.flatMap(({ variants }) => variants);

/**
 * The scheme a name, an alias or a name with a parameter (`wint4:g128`) means; case does not matter.
 * @throws UserError `unknown_scheme` with the list and the nearest name; UnsupportedError `unknown_scheme` for
 *   schemes of other programs that fdq knows of and does not have.
 */
export function resolveScheme(text: string): QuantScheme {
  return findScheme(SCHEMES, text);
}
