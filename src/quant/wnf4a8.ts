import { ACTIVATIONS } from './activation.js';
import { createNf4Family } from './nf4-scheme.js';

/** NF4 weights and int8 inputs for each token. */
export const wnf4a8 = createNf4Family({
  name: 'wnf4a8',
  aliases: [],
  summary: 'NF4 weights, one scale for 64 inputs; inputs rounded to int8 by token',
  activation: ACTIVATIONS.int8_token,
});
