import { expect, it } from 'vitest';
import { resolveScheme } from '../../../src/quant/registry.js';

const none = resolveScheme('none');

it('keeps bytes as they are, NaN included', () => {
  const tensor = { name: 'w', dataType: 'bfloat16', shape: [1, 3] } as const;
  const bytes = Uint8Array.of(0xc0, 0x7f, 0x80, 0x3f, 0, 0x80);
  const parts = none.quantize(tensor, { firstRow: 0, bytes });
  expect(parts).toEqual({ codes: bytes, scales: new Float32Array() });
  expect(parts.codes).not.toBe(bytes);
  expect([...none.dequantize(tensor, parts)]).toEqual([NaN, 1, -0]);
});

it('is never asked about what is no float', () => {
  expect(() => none.bytes({ dataType: 'int8', shape: [2, 2] })).toThrow(
    expect.objectContaining({ code: 'internal', message: expect.stringContaining('int8') as string }),
  );
});
