import { describe, expect, it } from 'vitest';
import { describeKernel } from '../../../src/inspect/kernels.js';

describe('the name of a kernel', () => {
  it.each([
    ['int4', 'none', 'bfloat16', 'amx', 'fdq amx: int4 × bfloat16'],
    ['int4', 'none', 'float32', 'amx', 'fdq avx512: int4 × float32'],
    ['e4m3', 'e4m3_group128', 'float32', 'avx512_bf16', 'fdq avx512_bf16: e4m3 × e4m3_group128'],
    ['int8', 'int8_token', 'float32', 'avx512_bf16', 'fdq avx512_vnni: int8 × int8_token'],
    ['nf4', 'int8_token', 'float32', 'avx512_bf16', 'fdq avx512_bf16: nf4 × int8_token'],
    ['float16', 'none', 'bfloat16', 'avx512_bf16', 'fdq avx512: float16 × bfloat16'],
    ['bfloat16', 'none', 'bfloat16', 'avx512_bf16', 'fdq avx512_bf16: bfloat16 × bfloat16'],
    ['int8', 'none', 'bfloat16', 'avx2', 'fdq avx2: int8 × bfloat16'],
  ] as const)('%s, inputs %s, %s on %s', (...row) => {
    const [format, activation, compute, isa, expected] = row;
    expect(describeKernel({ format, activation, compute, isa })).toBe(expected);
  });
});
