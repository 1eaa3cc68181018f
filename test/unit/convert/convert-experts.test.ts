import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { intAttribute, stringAttribute } from '../../../src/graph/builder.js';
import type { Attribute, Graph } from '../../../src/graph/ir.js';
import {
  createConvertedFile,
  graphOf,
  inline,
  K,
  matrix,
  node,
  readOutput,
  TOLERANCE,
  type ConvertedFile,
} from '../../helpers/convert-graph.js';
import { distance, fillValues, runOnnx } from '../../helpers/onnx-model.js';

let source: ConvertedFile;
beforeEach(async () => {
  source = await createConvertedFile();
});

const [EXPERTS, INNER] = [3, 32];

/** A MoE over x [t, K] and routes [t, EXPERTS]. */
function experts(
  changes: {
    readonly attributes?: Record<string, Attribute>;
    readonly fc1?: readonly number[];
    readonly fc3?: string;
  } = {},
  scheme?: string,
): Graph {
  const { attributes = {}, fc1 = [EXPERTS, INNER, K], fc3 } = changes;
  const [count = 0, inner = 0, hidden = 0] = fc1;
  const weights = [
    inline('fc1', fc1, matrix(count * inner, hidden, 1, scheme)),
    inline('b1', [EXPERTS, inner], fillValues(EXPERTS * inner, 2)),
    inline('fc2', [EXPERTS, K, INNER], matrix(EXPERTS * K, INNER, 3, scheme)),
  ];
  const inputs = ['x', 'routes', 'fc1', 'b1', 'fc2', ...(fc3 === undefined ? [] : ['', fc3])];
  const moe = node('MoE', inputs, 'y', {
    k: intAttribute(2),
    activation_type: stringAttribute('silu'),
    ...attributes,
  });
  return graphOf(
    {
      inputs: [
        { name: 'x', dataType: 'float32', shape: ['t', K] },
        { name: 'routes', dataType: 'float32', shape: ['t', EXPERTS] },
      ],
      outputs: [{ name: 'y', dataType: 'float32', shape: ['t', K] }],
      nodes: [{ ...moe, domain: 'com.microsoft' }],
    },
    weights,
  );
}

async function runExperts(model: string): Promise<Float32Array> {
  const y = new Float32Array(4 * K);
  await runOnnx(
    model,
    [
      { name: 'x', dataType: 'float32', shape: [4, K], data: fillValues(4 * K, 5) },
      { name: 'routes', dataType: 'float32', shape: [4, EXPERTS], data: fillValues(4 * EXPERTS, 6) },
    ],
    [{ name: 'y', dataType: 'float32', shape: [4, K], data: y }],
  );
  return y;
}

const swiglu = {
  activation_type: stringAttribute('swiglu'),
  swiglu_fusion: intAttribute(1),
};

describe('experts', () => {
  it.each([
    ['wint8', {}],
    ['wint8', { attributes: { normalize_routing_weights: intAttribute(1) } }],
    ['wint4', {}],
    ['wint4:g32', {}],
    ['wint4:g32', { attributes: swiglu, fc1: [EXPERTS, 2 * INNER, K] }],
  ])('become a QMoE of %s', async (scheme, changes) => {
    source.write(experts(changes, scheme));
    const expected = await runExperts(source.file);
    source.write(experts(changes));
    const { output } = await source.convert(scheme);
    const model = readOutput(output);
    expect(model.nodes.at(-1)).toMatchObject({ opType: 'QMoE' });
    expect([...model.initializers.keys()].sort()).toEqual(
      ['b1', ...['fc1', 'fc2'].flatMap((name) => [`${name}.quantized`, `${name}.quantized.scales`])].sort(),
    );
    expect(distance(await runExperts(path.join(output, 'model.onnx')), expected)).toBeLessThan(TOLERANCE);
  });

  it.each([
    ['a scheme that rounds inputs', 'w8a8', {}, 'cannot hold int8'],
    ['a scheme that is not of integers', 'fp8_per_channel', {}, 'cannot hold e4m3'],
    ['columns that groups do not divide', 'wint4:g64', {}, 'has 32 columns, not a multiple of the 64'],
    [
      'parts of different schemes',
      JSON.stringify({ quantization: 'wint8', targets: { fc1: 'wint4' } }),
      {},
      'has parts of different schemes',
    ],
    [
      'one part that stays',
      JSON.stringify({ quantization: 'wint8', ignore: ['fc1'] }),
      {},
      'has parts of different schemes',
    ],
    ['a third matrix', 'wint8', { fc3: 'fc1' }, 'its third matrix (FC3)'],
    [
      'halves apart',
      'wint8',
      { attributes: { activation_type: stringAttribute('swiglu') } },
      'not interleaved',
    ],
    ['the old layout', 'wint8', { fc1: [EXPERTS, K, INNER] }, 'not [experts, out, in]'],
  ] as const)('are refused with %s', async (_what, scheme, changes, message) => {
    source.write(experts(changes));
    await expect(source.convert(scheme)).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining(message) as string,
    });
  });
});
