import { createIntegerFamily } from './integer-scheme.js';

/** int4 weights in -7..7 (`:mse`: -8..7), two a byte, FastDeploy's `wint4`. */
export const wint4 = createIntegerFamily({
  name: 'wint4',
  aliases: ['w4a16', 'int4', 'weight_only_int4'],
  format: 'int4',
  activation: null,
  grouped: true,
  searched: true,
});
