import { createFp8Family } from './fp8-scheme.js';

const TILE = 128;

/** e4m3 weights in 128 x 128 tiles and inputs in groups of 128, of DeepSeek-V3 (arXiv:2412.19437, section 3.3.2). */
export const blockWiseFp8 = createFp8Family({
  name: 'block_wise_fp8',
  aliases: ['fp8_per_block', 'fp8_blockwise'],
  summary: 'e4m3 weights, one scale a 128 x 128 tile; inputs rounded to e4m3 in groups of 128',
  groupN: TILE,
  groupK: TILE,
  activation: 'e4m3_group128',
});
