import { createFp8Family } from './fp8-scheme.js';

/** e4m3 weights with one scale a tensor and inputs with one a token: vLLM's online `fp8`, FastDeploy's tensor-wise. */
export const fp8PerTensor = createFp8Family({
  name: 'fp8_per_tensor',
  aliases: ['fp8', 'tensor_wise_fp8'],
  summary: 'e4m3 weights, one scale a tensor; inputs rounded to e4m3 by token',
  groupN: 0,
  groupK: 0,
  activation: 'e4m3_token',
});
