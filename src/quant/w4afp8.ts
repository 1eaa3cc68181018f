import { ACTIVATIONS } from './activation.js';
import { createIntegerFamily } from './integer-scheme.js';

/** int4 weights and e4m3 inputs for each token, FastDeploy's `w4afp8`. */
export const w4afp8 = createIntegerFamily({
  name: 'w4afp8',
  aliases: [],
  format: 'int4',
  activation: ACTIVATIONS.e4m3_token,
  inputs: 'inputs rounded to e4m3 by token',
  grouped: true,
});
