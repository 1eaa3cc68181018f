import { createBlockScheme } from './block-scheme.js';
import { decodeE2m1, encodeE2m1, E2M1_MAX } from './numerics/fp4.js';
import { decodeE4m3, encodeE4m3, E4M3_MAX } from './numerics/fp8.js';
import { divideFloat32, safeScale } from './numerics/rounding.js';
import { absoluteMaximum } from './numerics/tiles.js';
import type { SchemeFamily } from './scheme.js';

const GROUP = 16;

/**
 * e2m1 weights with an e4m3 scale for 16 columns and a float32 scale a tensor, as NVIDIA TensorRT Model Optimizer
 * makes them: tensor scale = amax / (448 * 6), group scale = e4m3((amax of the group / 6) / tensor scale), code =
 * e2m1(w / (group scale * tensor scale)). A group that is small beside the tensor has scale 0 and is all zeros.
 * Tensors that are fused share the scale of the largest magnitude of all, as llm-compressor gives them for vLLM.
 */
export const nvfp4: SchemeFamily = Object.freeze({
  name: 'nvfp4',
  variants: [
    createBlockScheme({
      name: 'nvfp4',
      aliases: ['modelopt_fp4'],
      summary: 'e2m1 weights, one e4m3 scale for 16 inputs and a float32 scale a tensor',
      native: { format: 'e2m1', groupN: 0, groupK: 0, block: { columns: GROUP, type: 'e4m3' } },
      // Up to 1/3 of w is lost where a subnormal group scale is 1.5 times too small, all of it where that is 0.
      weight: {
        element: 'float4e2m1',
        maxError: { relative: 1 / 3, ofScale: 0.25, ofTensorScale: 6 * 2 ** -10 },
      },
      online: true,
      findTensorScale: (amax) => safeScale(amax, E4M3_MAX * E2M1_MAX),
      findScale: (values, tensorScale) =>
        encodeE4m3(divideFloat32(divideFloat32(absoluteMaximum(values), E2M1_MAX), tensorScale)),
      decodeScale: decodeE4m3,
      encode: encodeE2m1,
      decode: decodeE2m1,
    }),
  ] as const,
});
