import { createIntegerFamily } from './integer-scheme.js';

/** int8 weights in -127..127, FastDeploy's `wint8`. */
export const wint8 = createIntegerFamily({
  name: 'wint8',
  aliases: ['w8a16', 'int8', 'weight_only_int8', 'int8_per_channel_weight_only'],
  format: 'int8',
  activation: null,
  grouped: true,
});
