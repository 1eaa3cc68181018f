import { describe, expect, it } from 'vitest';
import { ACTIVATIONS, quantizeActivation } from '../../../src/quant/activation.js';
import { signExtend, unpackCodes } from '../../../src/quant/numerics/packing.js';
import { resolveScheme, SCHEMES } from '../../../src/quant/registry.js';
import { findDifference } from '../../helpers/native-weights.js';
import { bf16Tensor, bitsOf, goldenCases, goldenFloats, goldenTensor, readGolden } from './golden-vectors.js';

const WEIGHT_FILES = [
  { file: 'wint8', scheme: 'wint8', codes: 'q' },
  { file: 'wint4', scheme: 'wint4', codes: 'packed' },
  { file: 'wint4_g128', scheme: 'wint4:g128', codes: 'packed' },
  { file: 'fp8_block', scheme: 'block_wise_fp8', codes: 'q' },
  { file: 'fp8_tensor', scheme: 'fp8_per_tensor', codes: 'q' },
  { file: 'fp8_channel', scheme: 'fp8_per_channel', codes: 'q' },
  // The same weights under other inputs.
  { file: 'wint8', scheme: 'w8a8', codes: 'q' },
  { file: 'wint4', scheme: 'w4a8', codes: 'packed' },
  { file: 'wint4', scheme: 'w4afp8', codes: 'packed' },
  { file: 'wint4_g128', scheme: 'w4a8:g128', codes: 'packed' },
  { file: 'wint4_g128', scheme: 'w4afp8:g128', codes: 'packed' },
] as const;
const BLOCK_FILES = [
  { file: 'nvfp4', scales: ['global_scale'] },
  { file: 'mxfp4', scales: [] },
] as const;
const ACTIVATION_FILES = [
  { file: 'act_fp8_group128', rule: 'e4m3_group128' },
  { file: 'act_fp8_token', rule: 'e4m3_token' },
  { file: 'act_int8_token', rule: 'int8_token' },
] as const;
const WEIGHT_CASES = 21;
const ACTIVATION_CASES = 9;

const inputs = readGolden('inputs');

describe.each(WEIGHT_FILES)('$scheme', ({ file, scheme: name, codes }) => {
  const golden = readGolden(file);
  const scheme = resolveScheme(name);
  const cases = goldenCases(inputs, 'W.');

  it('has every case', () => {
    expect(cases).toHaveLength(WEIGHT_CASES);
  });

  it.each(cases)('meets %s bit for bit', (label) => {
    const { shape, bytes } = goldenTensor(inputs, `W.${label}`);
    const parts = scheme.quantize(bf16Tensor(label, shape), { firstRow: 0, bytes });
    expect(findDifference(parts.codes, goldenTensor(golden, `${label}.${codes}`).bytes)).toBeUndefined();
    expect(
      findDifference(bitsOf(parts.scales), bitsOf(goldenFloats(golden, `${label}.scale`))),
    ).toBeUndefined();
  });
});

describe.each(BLOCK_FILES)('$file', ({ file, scales }) => {
  const golden = readGolden(file);
  const scheme = resolveScheme(file);
  const cases = goldenCases(inputs, 'W.');

  it.each(cases)('meets %s bit for bit', (label) => {
    const { shape, bytes } = goldenTensor(inputs, `W.${label}`);
    const parts = scheme.quantize(bf16Tensor(label, shape), { firstRow: 0, bytes });
    expect(findDifference(parts.codes, goldenTensor(golden, `${label}.packed`).bytes)).toBeUndefined();
    expect(findDifference(parts.blockScales, goldenTensor(golden, `${label}.scale`).bytes)).toBeUndefined();
    const expected = scales.flatMap((name) => [...goldenFloats(golden, `${label}.${name}`)]);
    expect(findDifference(bitsOf(parts.scales), bitsOf(Float32Array.from(expected)))).toBeUndefined();
  });

  it.each(goldenCases(golden, '').filter((name) => name.endsWith('.dequantized')))('restores %s', (name) => {
    const label = name.slice(0, -'.dequantized'.length);
    const { shape, bytes } = goldenTensor(inputs, `W.${label}`);
    const [n, k] = shape as [number, number];
    const tensor = bf16Tensor(label, shape);
    const restored = scheme.dequantize(tensor, scheme.quantize(tensor, { firstRow: 0, bytes }));
    const padded = goldenTensor(golden, name).shape[1] as number;
    const expected = goldenFloats(golden, name).filter((_, at) => at % padded < k);
    expect(expected).toHaveLength(n * k);
    expect(findDifference(bitsOf(restored), bitsOf(expected))).toBeUndefined();
  });
});

it.each(['wint4', 'wint4_g128'])('unpacks %s to its codes', (file) => {
  const golden = readGolden(file);
  for (const label of goldenCases(inputs, 'W.')) {
    const { shape, bytes } = goldenTensor(golden, `${label}.q`);
    const [rows, k] = shape as [number, number];
    const packed = goldenTensor(golden, `${label}.packed`).bytes;
    const codes = Uint8Array.from(unpackCodes(packed, rows, k, 4), (code) => signExtend(code, 4));
    expect(findDifference(codes, bytes)).toBeUndefined();
  }
});

describe.each(ACTIVATION_FILES)('activations by $rule', ({ file, rule }) => {
  const golden = readGolden(file);
  const cases = goldenCases(inputs, 'X.');
  const read = (label: string): { name: string; rows: number; k: number; values: Float32Array } => {
    const [rows, k] = goldenTensor(inputs, `X.${label}`).shape as [number, number];
    return { name: label, rows, k, values: goldenFloats(inputs, `X.${label}`) };
  };

  it('has every case', () => {
    expect(cases).toHaveLength(ACTIVATION_CASES);
  });

  it.each(cases)('meets %s bit for bit', (label) => {
    const { codes, scales } = quantizeActivation(ACTIVATIONS[rule], read(label));
    expect(findDifference(codes, goldenTensor(golden, `${label}.q`).bytes)).toBeUndefined();
    expect(findDifference(bitsOf(scales), bitsOf(goldenFloats(golden, `${label}.scale`)))).toBeUndefined();
  });
});

describe('inputs to refuse', () => {
  const refuse = readGolden('refuse');
  const quantizing = SCHEMES.filter(({ native }) => native !== null);

  it.each(goldenCases(refuse, 'W.').flatMap((label) => quantizing.map(({ name }) => [label, name] as const)))(
    'W.%s by %s',
    (label, name) => {
      const { shape, bytes } = goldenTensor(refuse, `W.${label}`);
      const quantize = (): unknown =>
        resolveScheme(name).quantize(bf16Tensor(`the.${label}`, shape), { firstRow: 0, bytes });
      expect(quantize).toThrow(
        expect.objectContaining({
          code: 'non_finite_weight',
          param: `the.${label}`,
          message: expect.stringMatching(new RegExp(`the\\.${label}.*row \\d+, column \\d+`)) as unknown,
        }),
      );
    },
  );

  it.each(
    goldenCases(refuse, 'X.').flatMap((label) =>
      Object.entries(ACTIVATIONS).map(([rule, key]) => [label, rule, key] as const),
    ),
  )('X.%s by %s', (label, _, key) => {
    const [rows, k] = goldenTensor(refuse, `X.${label}`).shape as [number, number];
    const values = goldenFloats(refuse, `X.${label}`);
    expect(() => quantizeActivation(key, { name: label, rows, k, values })).toThrow(
      expect.objectContaining({ code: 'non_finite_weight' }),
    );
  });
});
