import { createFp8Family } from './fp8-scheme.js';

/** e4m3 weights with one scale an output channel and inputs with one a token, FastDeploy's `wfp8afp8`. */
export const fp8PerChannel = createFp8Family({
  name: 'fp8_per_channel',
  aliases: ['wfp8afp8'],
  summary: 'e4m3 weights, one scale an output channel; inputs rounded to e4m3 by token',
  groupN: 1,
  groupK: 0,
  activation: 'e4m3_token',
});
