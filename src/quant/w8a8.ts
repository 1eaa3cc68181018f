import { ACTIVATIONS } from './activation.js';
import { createIntegerFamily } from './integer-scheme.js';

/**
 * int8 weights with a scale an output channel and int8 inputs with one a token: the vector-wise quantization of
 * LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) without its outlier columns.
 */
export const w8a8 = createIntegerFamily({
  name: 'w8a8',
  aliases: [],
  format: 'int8',
  activation: ACTIVATIONS.int8_token,
  inputs: 'inputs rounded to int8 by token',
});
