import { ACTIVATIONS } from './activation.js';
import { createIntegerFamily } from './integer-scheme.js';

/** int4 weights and int8 inputs for each token, FastDeploy's `w4a8`. */
export const w4a8 = createIntegerFamily({
  name: 'w4a8',
  aliases: [],
  format: 'int4',
  activation: ACTIVATIONS.int8_token,
  inputs: 'inputs rounded to int8 by token',
  grouped: true,
});
