import { widenFloats } from '../../src/quant/numerics/floats.js';
import type { QuantScheme } from '../../src/quant/scheme.js';

const FUSED: readonly (readonly string[])[] = [
  ['q_proj', 'k_proj', 'v_proj'],
  ['gate_proj', 'up_proj'],
];

/** A bfloat16 matrix of a checkpoint. */
export interface StoredFloats {
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Names of the weights that models multiply as one with this one, itself included. */
export function fusedWith(weight: string): readonly string[] {
  const parts = weight.split('.');
  const module = parts.at(-2) ?? '';
  const names = FUSED.find((group) => group.includes(module)) ?? [module];
  return names.map((name) => parts.with(-2, name).join('.'));
}

/** What the oracle of a scheme makes of a weight of a model, `find` finding it and those that are fused with it. */
export function restoreWeight(
  scheme: QuantScheme,
  name: string,
  find: (name: string) => StoredFloats,
): Float32Array {
  const { shape, bytes } = find(name);
  const tensor = { name, dataType: 'bfloat16', shape } as const;
  let largest = 0;
  for (const each of fusedWith(name)) {
    for (const value of widenFloats(find(each).bytes, 'bfloat16'))
      largest = Math.max(largest, Math.abs(value));
  }
  const tensorScale = scheme.findTensorScale?.(largest);
  const shared = tensorScale === undefined ? {} : { tensorScale };
  return scheme.dequantize(tensor, scheme.quantize(tensor, { firstRow: 0, bytes, ...shared }));
}
