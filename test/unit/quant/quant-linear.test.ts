import { describe, expect, it } from 'vitest';
import type { WeightSource } from '../../../src/graph/ir.js';
import { emitQuantized } from '../../../src/quant/quant-linear.js';
import { memberSlices } from '../../../src/quant/packed-layout.js';
import { resolveScheme, SCHEMES } from '../../../src/quant/registry.js';
import type { EmitRequest } from '../../../src/quant/scheme.js';
import { byteLengthOf } from '../../../src/graph/data-types.js';

const K = 70;
const ROWS = [17, 5];

function member(rows: number, index: number): WeightSource {
  const shape = [rows, K];
  const byteLength = rows * K * 2;
  return { name: `m${index}.weight`, dataType: 'bfloat16', shape, file: '/w', offset: 0, byteLength };
}

const members = ROWS.map(member);
const request: EmitRequest = {
  node: '/layer/QuantLinear',
  x: 'x',
  bias: '',
  output: 'y',
  weight: { name: 'W', dataType: 'bfloat16', shape: [22, K], data: { kind: 'weight', members } },
  members,
  fused: members,
  compute: 'float32',
};

describe('emit', () => {
  it.each([
    ['none', ['x', 'W', '', ''], ['W:bfloat16']],
    ['wint8', ['x', 'W', 'W.scales', ''], ['W:int8', 'W.scales:float32']],
    ['wint4:g32', ['x', 'W', 'W.scales', ''], ['W:int4', 'W.scales:float32']],
    ['wnf4', ['x', 'W', 'W.scales', ''], ['W:uint8', 'W.scales:float32']],
    ['wint2', ['x', 'W', '', '', 'W.block_scales'], ['W:uint8', 'W.block_scales:bfloat16']],
    ['mxfp4', ['x', 'W', '', '', 'W.block_scales'], ['W:uint8', 'W.block_scales:uint8']],
    [
      'nvfp4',
      ['x', 'W', 'W.scales', '', 'W.block_scales'],
      ['W:uint8', 'W.scales:float32', 'W.block_scales:float8e4m3fn'],
    ],
    ['fp8_per_tensor', ['x', 'W', 'W.scales', ''], ['W:float8e4m3fn', 'W.scales:float32']],
  ])('names the inputs and initializers of %s', (name, inputs, initializers) => {
    const result = resolveScheme(name).emit(request);
    expect(result.node.inputs).toEqual(inputs);
    expect(result.initializers.map((made) => `${made.name}:${made.dataType}`)).toEqual(initializers);
  });

  it('says how the weight is to be read and x to be rounded', () => {
    const { attributes } = resolveScheme('nvfp4').emit(request).node;
    const values = Object.fromEntries(Object.entries(attributes).map(([key, { value }]) => [key, value]));
    expect(values).toEqual({
      format: 'e2m1',
      k: K,
      rows: ROWS,
      group_n: 0,
      group_k: 0,
      block_k: 16,
      block_type: 'e4m3',
      activation: 'none',
      activation_scale: 0,
      compute: 'float32',
    });
    expect(resolveScheme('w4a8:g64').emit(request).node.attributes).toMatchObject({
      format: { value: 'int4' },
      group_n: { value: 1 },
      group_k: { value: 64 },
      block_k: { value: 0 },
      activation: { value: 'int8_token' },
    });
  });

  it('has the scale of a stored activation and zero points where the format has them', () => {
    const { node, initializers } = emitQuantized(request, {
      scheme: 'stored',
      native: { format: 'int4', groupN: 1, groupK: 32, asymmetric: true },
      activation: 'int8_static',
      activationScale: 0.25,
    });
    expect(node.inputs).toEqual(['x', 'W', 'W.scales', '', '', 'W.zero_points']);
    expect(node.attributes['activation_scale']).toEqual({ type: 'float', value: 0.25 });
    expect(initializers.at(-1)).toMatchObject({ name: 'W.zero_points', dataType: 'int8', shape: [3, 3, 16] });
  });

  it.each(SCHEMES.filter(({ native }) => native !== null))(
    'gives every part of $name the bytes its members fill',
    (scheme) => {
      const { initializers } = scheme.emit(request);
      const bytes = new Map(
        initializers.map(({ data, dataType, shape }) => [
          data.kind === 'quantized' ? data.part : '',
          byteLengthOf(dataType, shape),
        ]),
      );
      if (scheme.native === null) throw new Error('not quantized');
      const last = memberSlices(ROWS, K, scheme.native).at(-1);
      if (last === undefined) throw new Error('no members');
      expect(bytes.get('weight')).toBe(last.weightOffset + last.weightBytes);
      expect(bytes.get('scales') ?? 0).toBe(4 * (last.scaleOffset + last.scaleCount));
      expect(bytes.get('block_scales') ?? 0).toBe(last.blockScaleOffset + last.blockScaleBytes);
      const memory = ROWS.map((rows) => scheme.bytes({ dataType: 'bfloat16', shape: [rows, K] }));
      expect([...bytes.values()].reduce((sum, part) => sum + part, 0)).toBe(
        memory.reduce((sum, part) => sum + part, 0),
      );
    },
  );
});
