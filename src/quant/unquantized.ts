import { acceptsFloatMatrix, requireFloat } from './float-matrix.js';
import { floatBytes, widenFloats } from './numerics/floats.js';
import { emitStored, QUANT_LINEAR_OP } from './quant-linear.js';
import type { QuantScheme, SchemeFamily } from './scheme.js';

const scheme: QuantScheme = Object.freeze<QuantScheme>({
  name: 'none',
  aliases: ['bf16', 'fp16', 'unquantized'],
  summary: 'weights as stored',
  weight: {
    element: 'stored',
    scaleType: null,
    group: [1, 1],
    dynamic: false,
    symmetric: true,
    maxError: { relative: 0, ofScale: 0 },
  },
  activation: null,
  requires: { devices: ['cpu'], op: QUANT_LINEAR_OP },
  native: null,
  online: true,
  rowAlign: 1,
  accepts: acceptsFloatMatrix,
  bytes: ({ dataType, shape }) =>
    shape.reduce((product, size) => product * size, floatBytes(requireFloat({ dataType }))),
  quantize: (_, { bytes }) => ({ codes: bytes.slice(), scales: new Float32Array() }),
  dequantize: ({ dataType }, { codes }) => widenFloats(codes, requireFloat({ dataType })),
  emit: emitStored,
});

/** Weights stay as they are and are mapped, not read: a NaN in them is not looked for. */
export const unquantized: SchemeFamily = Object.freeze({ name: 'none', variants: [scheme] as const });
