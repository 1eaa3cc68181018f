import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { GraphBuilder, intAttribute, stringAttribute } from '../../src/graph/builder.js';
import { parseModel } from '../../src/graph/onnx.js';
import { convertFolder } from '../helpers/convert-fixture.js';
import { distance, fillValues, runOnnx, writeOnnx } from '../helpers/onnx-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

const [TOKENS, K, INNER, EXPERTS, CHOSEN] = [5, 64, 32, 3, 2];
/** Sums in float32, in another order; of the largest output. */
const TOLERANCE = 2e-6;

let dir: string;
let file: string;
beforeEach(async () => {
  dir = await createTempDir();
  mkdirSync(path.join(dir, 'in'));
  file = path.join(dir, 'in', 'model.onnx');
});

const fc1 = fillValues(EXPERTS * INNER * K, 1);
const fc2 = fillValues(EXPERTS * K * INNER, 2);
const bias = fillValues(EXPERTS * INNER, 3);
const x = fillValues(TOKENS * K, 4);
const routes = fillValues(TOKENS * EXPERTS, 5);

/** y = MoE(x + x), so that no input of the model is that of the MoE. */
function writeModel(normalized: boolean): void {
  const builder = GraphBuilder.create(
    'moe',
    new Map([
      ['', 21],
      ['com.microsoft', 1],
    ]),
  );
  const floats = (shape: readonly (string | number)[]) => ({ dataType: 'float32' as const, shape });
  const input = builder.input('x', 'float32', ['t', K]);
  const probabilities = builder.input('routes', 'float32', ['t', EXPERTS]);
  const twice = builder.value({ opType: 'Add', inputs: [input, input], output: floats(['t', K]) });
  const constants = [
    builder.constant('fc1', 'float32', [EXPERTS, INNER, K], fc1),
    builder.constant('b1', 'float32', [EXPERTS, INNER], bias),
    builder.constant('fc2', 'float32', [EXPERTS, K, INNER], fc2),
  ];
  const y = builder.value({
    opType: 'MoE',
    domain: 'com.microsoft',
    inputs: [twice, probabilities, ...constants],
    output: { name: 'y', ...floats(['t', K]) },
    attributes: {
      k: intAttribute(CHOSEN),
      activation_type: stringAttribute('silu'),
      normalize_routing_weights: intAttribute(Number(normalized)),
    },
  });
  builder.output(y);
  writeOnnx(file, builder.build());
}

interface Written {
  readonly values: readonly [Float64Array, Float64Array];
  readonly y: Float32Array;
}

/** What QMoE says its codes stand for, by its documentation, and what ONNX Runtime makes of them. */
async function convertAndRun(scheme: string, group: number): Promise<Written> {
  const { output, verified } = await convertFolder(file, dir, scheme, { format: 'onnx', verify: true });
  expect(verified).toContain('has a cosine of at least 0.99');
  const written = path.join(output, 'model.onnx');
  const { nodes, initializers } = parseModel(readFileSync(written), { dir: output });
  const node = nodes.find(({ opType }) => opType === 'QMoE');
  const bits = scheme.startsWith('wint8') ? 8 : 4;
  expect(node?.attributes).toMatchObject({
    expert_weight_bits: { value: bits },
    ...(group === 0 ? {} : { block_size: { value: group } }),
  });
  const read = (index: number): Uint8Array => {
    const data = initializers.get(node?.inputs[index] ?? '')?.data;
    if (data?.kind !== 'external') throw new Error('the tensors of QMoE lie in a file');
    const bytes = readFileSync(data.file).subarray(data.offset, data.offset + data.byteLength);
    return Uint8Array.from(bytes);
  };
  const restore = (weight: number, columns: number): Float64Array => {
    const codes = read(weight);
    const scales = new Float32Array(read(weight + 1).buffer);
    const width = group === 0 ? columns : group;
    return Float64Array.from({ length: (codes.length * 8) / bits }, (_, at) => {
      const code = bits === 8 ? codes[at]! - 128 : ((codes[at >> 1]! >> (4 * (at & 1))) & 15) - 8;
      return code * scales[Math.floor(at / width)]!;
    });
  };
  const y = new Float32Array(TOKENS * K);
  await runOnnx(
    written,
    [
      { name: 'x', dataType: 'float32', shape: [TOKENS, K], data: x },
      { name: 'routes', dataType: 'float32', shape: [TOKENS, EXPERTS], data: routes },
    ],
    [{ name: 'y', dataType: 'float32', shape: [TOKENS, K], data: y }],
  );
  return { values: [restore(2, K), restore(5, INNER)], y };
}

/** amax / steps of a group, or of a row, and the nearest multiple of it. */
function quantize(values: Float32Array, group: number, steps: number): Float64Array {
  const found = new Float64Array(values.length);
  for (let start = 0; start < values.length; start += group) {
    const part = values.subarray(start, start + group);
    const scale = Math.fround(part.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / steps);
    for (const [at, value] of part.entries()) found[start + at] = roundEven(value / scale) * scale;
  }
  return found;
}

function roundEven(value: number): number {
  const near = Math.round(value);
  return near - value === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

/** The definition of MoE; `round` is what becomes of what a matrix is multiplied with. */
function computeMoe(
  [w1, w2]: Written['values'],
  normalized: boolean,
  round: (values: Float64Array) => Float64Array,
): Float32Array {
  const y = new Float64Array(TOKENS * K);
  for (let token = 0; token < TOKENS; token++) {
    const h = round(Float64Array.from(x.subarray(token * K, (token + 1) * K), (value) => 2 * value));
    const scores = [...routes.subarray(token * EXPERTS, (token + 1) * EXPERTS)].map(Math.exp);
    const order = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, CHOSEN);
    const rest = normalized ? order : [...scores.keys()];
    const total = rest.reduce((sum, expert) => sum + scores[expert]!, 0);
    for (const expert of order) {
      const inner = round(
        Float64Array.from({ length: INNER }, (_, row) => {
          const at = expert * INNER + row;
          const z = dot(w1, at * K, h) + bias[at]!;
          return z / (1 + Math.exp(-z));
        }),
      );
      for (let row = 0; row < K; row++) {
        y[token * K + row]! += (scores[expert]! / total) * dot(w2, (expert * K + row) * INNER, inner);
      }
    }
  }
  return Float32Array.from(y);
}

function dot(weights: Float64Array, start: number, values: Float64Array): number {
  return values.reduce((sum, value, at) => sum + value * weights[start + at]!, 0);
}

describe('a QMoE that fdq convert writes', () => {
  it.each([
    ['wint8', 0, false],
    ['wint8', 0, true],
    ['wint8:g32', 32, false],
    ['wint8:g32', 32, true],
    ['wint4', 0, false],
    ['wint4:g32', 32, true],
  ] as const)(
    'in %s, groups of %i, normalized %s, computes what MoE is defined as',
    async (scheme, group, normalized) => {
      writeModel(normalized);
      const { values, y } = await convertAndRun(scheme, group);
      const steps = scheme.startsWith('wint8') ? 127 : 7;
      const expected = [quantize(fc1, group || K, steps), quantize(fc2, group || INNER, steps)] as const;
      for (const [index, weights] of expected.entries())
        expect(distance64(values[index]!, weights)).toBeLessThan(1e-7);
      const exact = computeMoe(expected, normalized, (each) => each);
      // ONNX Runtime rounds what it multiplies with int8 groups to int8, group by group, where the CPU can multiply those.
      const rounded = computeMoe(expected, normalized, (each) => quantize(Float32Array.from(each), 32, 127));
      const distances = [distance(y, exact), ...(scheme === 'wint8:g32' ? [distance(y, rounded)] : [])];
      expect(Math.min(...distances)).toBeLessThan(TOLERANCE);
    },
  );
});

function distance64(found: Float64Array, expected: Float64Array): number {
  return found.reduce((worst, value, at) => Math.max(worst, Math.abs(value - expected[at]!)), 0);
}
