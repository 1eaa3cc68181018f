import { describe, expect, it } from 'vitest';
import { quantizeActivationE4m3 } from '../../../src/quant/block-wise-fp8.js';
import { unpackInt4 } from '../../../src/quant/numerics/int4.js';
import { resolveScheme, SCHEMES } from '../../../src/quant/registry.js';
import { bitsOf, bf16Tensor, goldenCases, goldenFloats, goldenTensor, readGolden } from './golden-vectors.js';

const WEIGHT_FILES = [
  { file: 'wint8', scheme: 'wint8', codes: 'q' },
  { file: 'wint4', scheme: 'wint4', codes: 'packed' },
  { file: 'wint4_g128', scheme: 'wint4:g128', codes: 'packed' },
  { file: 'fp8_block', scheme: 'block_wise_fp8', codes: 'q' },
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
    expect(parts.codes).toEqual(goldenTensor(golden, `${label}.${codes}`).bytes);
    expect(bitsOf(parts.scales)).toEqual(bitsOf(goldenFloats(golden, `${label}.scale`)));
  });
});

it.each(['wint4', 'wint4_g128'])('unpacks %s to its codes', (file) => {
  const golden = readGolden(file);
  for (const label of goldenCases(inputs, 'W.')) {
    const { shape, bytes } = goldenTensor(golden, `${label}.q`);
    const [rows, k] = shape as [number, number];
    const packed = goldenTensor(golden, `${label}.packed`).bytes;
    expect(unpackInt4(packed, rows, k)).toEqual(new Int8Array(bytes.buffer));
  }
});

describe('activations of block_wise_fp8', () => {
  const golden = readGolden('act_fp8_group128');
  const cases = goldenCases(inputs, 'X.');

  it('has every case', () => {
    expect(cases).toHaveLength(ACTIVATION_CASES);
  });

  it.each(cases)('meets %s bit for bit', (label) => {
    const [rows, k] = goldenTensor(inputs, `X.${label}`).shape as [number, number];
    const { codes, scales } = quantizeActivationE4m3({
      name: label,
      rows,
      k,
      values: goldenFloats(inputs, `X.${label}`),
    });
    expect(codes).toEqual(goldenTensor(golden, `${label}.q`).bytes);
    expect(bitsOf(scales)).toEqual(bitsOf(goldenFloats(golden, `${label}.scale`)));
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

  it.each(goldenCases(refuse, 'X.'))('X.%s', (label) => {
    const [rows, k] = goldenTensor(refuse, `X.${label}`).shape as [number, number];
    const values = goldenFloats(refuse, `X.${label}`);
    expect(() => quantizeActivationE4m3({ name: label, rows, k, values })).toThrow(
      expect.objectContaining({ code: 'non_finite_weight' }),
    );
  });
});
