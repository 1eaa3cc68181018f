import { createNf4Family } from './nf4-scheme.js';

/** NF4 weights. Under `--dtype bfloat16` the kernels round its 16 values to bfloat16; float32 computes exactly. */
export const wnf4 = createNf4Family({
  name: 'wnf4',
  aliases: ['wnf4a16', 'nf4'],
  summary: 'NF4 weights, one scale for 64 inputs',
  activation: null,
});
