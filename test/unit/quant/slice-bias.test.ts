import { describe, expect, it } from 'vitest';
import type { Initializer, InitializerData } from '../../../src/graph/ir.js';
import { asFloat32, sliceBias } from '../../../src/quant/slice-bias.js';
import { source } from './float-graph.js';

function bias(data: InitializerData, dataType: Initializer['dataType'] = 'float32'): Initializer {
  return { name: 'b', dataType, shape: [4], data };
}

describe('sliceBias', () => {
  it('copies inline bytes', () => {
    const bytes = new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer);
    const part = sliceBias(bias({ kind: 'inline', bytes }), 'part', [1, 3]);
    expect(part).toMatchObject({ name: 'part', dataType: 'float32', shape: [2] });
    expect(part.data).toEqual({ kind: 'inline', bytes: new Uint8Array(Float32Array.of(2, 3).buffer) });
  });

  it('narrows a range of a file', () => {
    const part = sliceBias(
      bias({ kind: 'external', file: '/f', offset: 100, byteLength: 16 }),
      'part',
      [1, 3],
    );
    expect(part.data).toEqual({ kind: 'external', file: '/f', offset: 104, byteLength: 8 });
  });

  it('keeps whole members and cuts others', () => {
    const members = [source('a', [1]), source('b', [3]), source('c', [2])];
    const part = sliceBias(bias({ kind: 'weight', members, addend: 1 }), 'part', [1, 3]);
    const cut = { ...source('b', [3]), shape: [2], byteLength: 4 };
    expect(part.data).toEqual({ kind: 'weight', members: [cut], addend: 1 });
    const rest = sliceBias(bias({ kind: 'weight', members }), 'part', [2, 6]).data;
    expect(rest).toEqual({ kind: 'weight', members: [{ ...cut, offset: 1002 }, members[2]] });
  });

  it('does not take a quantized one', () => {
    const layer = { node: 'n', scheme: 'wint8', members: [] };
    expect(() => sliceBias(bias({ kind: 'quantized', layer, part: 'weight' }), 'part', [0, 1])).toThrow(
      'quantized',
    );
  });
});

it('widens what is not float32', () => {
  const wide = bias({ kind: 'weight', members: [source('a', [4])] });
  expect(asFloat32(wide)).toBe(wide);
  expect(asFloat32({ ...wide, dataType: 'bfloat16' })).toEqual(wide);
});
