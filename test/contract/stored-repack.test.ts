import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/errors.js';
import { openWeightFile } from '../../src/hub/weight-file.js';
import { repackStored, restoreStored } from '../../src/load/repack-stored.js';
import { memberSlices, unpackPanels } from '../../src/quant/packed-layout.js';
import { schemeOfStored } from '../../src/quant/stored-scheme.js';
import type { RepackJob, RestoreJob } from '../../src/runtime/addon.js';
import { openAddon } from '../helpers/addon.js';
import { STORED_CASES } from '../helpers/stored-cases.js';
import { INPUT_SCALE } from '../helpers/stored-bytes.js';
import { createRandom } from '../helpers/stored-formats.js';
import { openSample, sampleWeight, SAMPLE_MODULE, storedCase } from '../helpers/stored-sample.js';
import type { StoredSource } from '../helpers/stored-sample.js';

const { addon } = openAddon();

/** The floats that the repacked panels of a stored weight stand for. */
async function repackedWeights(source: StoredSource, threads: number): Promise<Float32Array> {
  const [n = 0, k = 0] = source.shape;
  const { native } = source.stored.format;
  const [slice] = memberSlices([n], k, native);
  // Whatever was there before must not matter.
  const target = {
    weight: new Uint8Array(slice!.weightBytes).fill(0xa5),
    scales: new Float32Array(slice!.scaleCount).fill(NaN),
    ...(native.block === undefined ? {} : { blockScales: new Uint8Array(slice!.blockScaleBytes).fill(0xff) }),
    ...(native.asymmetric === true ? { zeroPoints: new Int8Array(slice!.zeroPointCount).fill(0x55) } : {}),
  };
  const handle = await openWeightFile(source.file);
  try {
    await repackStored(addon, { source, target, threads, fdOf: () => handle.fd });
  } finally {
    await handle.close();
  }
  const { weight: codes, ...parts } = target;
  const canonical = unpackPanels({ n, k, native }, { codes, ...parts });
  return schemeOfStored(source.stored).dequantize(source, canonical);
}

/** The floats that the addon restores. */
async function restoredWeights(source: StoredSource, threads: number): Promise<Float32Array> {
  const handle = await openWeightFile(source.file);
  try {
    return await restoreStored(addon, { source, threads, fdOf: () => handle.fd });
  } finally {
    await handle.close();
  }
}

/** Rows and columns that fill panels, groups and tiles, or not. */
const SHAPES = [
  [1, 1],
  [17, 96],
  [150, 200],
  [272, 136],
] as const;

describe.each(STORED_CASES.map((stored) => [stored.name, stored] as const))('%s', (_, stored) => {
  const [unitN, unitK] = stored.unit;
  const shapes = SHAPES.map(
    ([n, k]) => [Math.ceil(n / unitN) * unitN, Math.ceil(k / unitK) * unitK] as const,
  );

  it.each(shapes)('[%i, %i] keeps its values bit for bit, on any number of threads', async (n, k) => {
    const sample = stored.write(n, k, createRandom(n * 1000 + k));
    const source = sampleWeight(await openSample({ ...stored, tensors: sample.tensors }));
    expect(source.shape).toEqual([n, k]);
    for (const threads of [1, 3]) {
      const values = await repackedWeights(source, threads);
      expect(Buffer.compare(Buffer.from(values.buffer), Buffer.from(sample.weights.buffer))).toBe(0);
      const restored = await restoredWeights(source, threads);
      expect(Buffer.compare(Buffer.from(restored.buffer), Buffer.from(values.buffer))).toBe(0);
    }
  });

  it('is named and rounds inputs as its config says', async () => {
    const [n, k] = shapes[3]!;
    const { tensors } = stored.write(n, k, createRandom(7));
    const checkpoint = await openSample({ ...stored, tensors });
    const { scheme, format } = sampleWeight(checkpoint).stored;
    expect(scheme).toBe(stored.scheme);
    expect(format.activation).toBe(stored.activation);
    expect(format.activationScale).toBe(stored.activation.endsWith('static') ? INPUT_SCALE : undefined);
    expect([...checkpoint.tensors.keys()]).toEqual(['lm_head.weight', `${SAMPLE_MODULE}.weight`]);
    expect(checkpoint.warnings).toEqual([]);
  });
});

/** What is wrong with a stored weight of which the tensor `suffix` has `bytes` from `at` on. */
async function problemOf(
  name: string,
  [suffix, at, bytes]: readonly [suffix: string, at: number, bytes: readonly number[]],
): Promise<UserError> {
  const stored = storedCase(name);
  const { tensors } = stored.write(32, 96, createRandom(3));
  const { data, ...rest } = tensors[suffix]!;
  const spoiled = Uint8Array.from(data!);
  spoiled.set(bytes, at);
  const checkpoint = await openSample({
    ...stored,
    tensors: { ...tensors, [suffix]: { ...rest, data: spoiled } },
  });
  return failureOf(sampleWeight(checkpoint));
}

async function failureOf(source: StoredSource): Promise<UserError> {
  try {
    await repackedWeights(source, 2);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('a stored weight', () => {
  it.each<[string, readonly [string, number, readonly number[]], string, string]>([
    [
      'fp8, tiles',
      ['weight', 5 * 96 + 7, [0x7f]],
      'non_finite_weight',
      'weight holds a NaN for row 5, column 7',
    ],
    [
      'fp8, tiles',
      ['weight', 31 * 96, [0xff]],
      'non_finite_weight',
      'weight holds a NaN for row 31, column 0',
    ],
    [
      'fp8, tiles',
      ['weight_scale_inv', 0, [0, 0, 0x80, 0x7f]],
      'non_finite_weight',
      'weight_scale_inv holds a scale that is no finite number for row 0, group 0',
    ],
    [
      'gptq v1, 4 bits, symmetric',
      ['scales', 2 * (2 * 32 + 9), [0x01, 0x7e]],
      'non_finite_weight',
      'scales holds a scale that is no finite number for row 9, group 2',
    ],
    [
      'int-quantized',
      ['weight_scale', 2 * 17, [0x80, 0xff]],
      'non_finite_weight',
      'weight_scale holds a scale that is no finite number for row 17, group 0',
    ],
    [
      'modelopt NVFP4',
      ['weight_scale', 3 * 6 + 2, [0xb8]],
      'non_finite_weight',
      'weight_scale holds a scale that is negative or NaN for row 3, group 2',
    ],
    [
      'gptq v1, 4 bits, symmetric',
      ['qzeros', 4 * 4 + 1, [0x79]],
      'invalid_checkpoint',
      'qzeros holds a zero point for row 2, group 1 that is 2 above the middle',
    ],
    [
      'gptq v1, 8 bits',
      ['qzeros', 3, [0x7e]],
      'invalid_checkpoint',
      'qzeros holds a zero point for row 3, group 0 that is 1 below the middle',
    ],
  ])('of %s with %j is refused: %s', async (name, spoil, code, message) => {
    const error = await problemOf(name, spoil);
    expect(error.code).toBe(code);
    expect(error.message).toContain(`${SAMPLE_MODULE}.${message}`);
  });

  it.each(['codes', 'scales', 'zeroPoints', 'blockScales'] as const)(
    'whose file ends before its %s is refused',
    async (part) => {
      const stored = storedCase(part === 'blockScales' ? 'nvfp4-pack-quantized' : 'awq');
      const { tensors } = stored.write(32, 96, createRandom(3));
      const source = sampleWeight(await openSample({ ...stored, tensors }));
      const { parts } = source.stored;
      const cut = { ...parts[part]!, offset: 1 << 20 };
      const error = await failureOf({
        ...source,
        stored: { ...source.stored, parts: { ...parts, [part]: cut } },
      });
      expect(error).toMatchObject({ code: 'invalid_checkpoint', param: cut.name });
      expect(error.message).toContain('the file ended early');
    },
  );

  it('that the system cannot read is refused', async () => {
    const stored = storedCase('awq');
    const { tensors } = stored.write(32, 96, createRandom(3));
    const source = sampleWeight(await openSample({ ...stored, tensors }));
    const target = {
      weight: new Uint8Array((32 * 128) / 2),
      scales: new Float32Array(96),
      zeroPoints: new Int8Array(96),
    };
    const request = { source, target, threads: 1, fdOf: () => 1 << 20 };
    await expect(repackStored(addon, request)).rejects.toMatchObject({
      code: 'invalid_checkpoint',
      message: expect.stringContaining('the system reported error') as string,
    });
  });
});

describe('gptq version 1', () => {
  // Zero points of rows 0 to 7 in a word, and that word minus 0x11111111 by hand.
  it.each([
    [[8, 8, 8, 8, 8, 8, 8, 8], 0x77777777],
    [[0, 5, 1, 15, 7, 8, 1, 2], 0x1076e03f],
    [[0, 0, 0, 0, 0, 0, 0, 0], 0xeeeeeeef],
  ])('zero points %j are stored as a word less ones', async (zeros, word) => {
    const stored = storedCase('gptq v1, 4 bits, zero points');
    const { tensors } = stored.write(8, 64, createRandom(1));
    const data = Uint8Array.from([0, 8, 16, 24].map((shift) => (word >>> shift) & 0xff));
    const source = sampleWeight(
      await openSample({ ...stored, tensors: { ...tensors, qzeros: { ...tensors['qzeros']!, data } } }),
    );
    const target = {
      weight: new Uint8Array((16 * 64) / 2),
      scales: new Float32Array(16),
      zeroPoints: new Int8Array(16),
    };
    const handle = await openWeightFile(source.file);
    await repackStored(addon, { source, target, threads: 1, fdOf: () => handle.fd });
    await handle.close();
    expect([...target.zeroPoints.subarray(0, 8)].map((zero) => zero + 8)).toEqual(zeros);
  });
});

describe('restoreWeight checks what would corrupt memory', () => {
  const job: RestoreJob = {
    n: 16,
    k: 64,
    format: 'int4',
    groupN: 1,
    groupK: 32,
    weight: new Uint8Array(512),
    scales: new Float32Array(32),
    target: new Float32Array(16 * 64),
    threads: 1,
  };

  it.each<[string, Partial<RestoreJob>, RegExp]>([
    ['too small a weight', { weight: new Uint8Array(511) }, /exactly the size/],
    ['too few scales', { scales: new Float32Array(16) }, /exactly the size/],
    ['too small a target', { target: new Float32Array(16 * 63) }, /n \* k floats/],
    ['too few zero points', { zeroPoints: new Int8Array(31) }, /shaped like the scales/],
    ['a column twice', { columnOrder: new Int32Array(64) }, /every column once/],
    ['a column out of range', { columnOrder: new Int32Array(64).fill(64) }, /every column once/],
    ['too few columns', { columnOrder: Int32Array.of(0, 1) }, /k entries/],
    ['no rows', { n: 0 }, /out of range/],
  ])('%s', (_, changes, message) => {
    expect(() => addon.restoreWeight({ ...job, ...changes })).toThrow(message);
  });
});

describe('repackWeight checks what would corrupt memory', () => {
  const range = { fd: 0, offset: 0 };
  const job: RepackJob = {
    n: 16,
    k: 64,
    format: 'int4',
    groupN: 1,
    groupK: 32,
    codes: { ...range, layout: 'gptq', rowBytes: 0, offsetBinary: true },
    scales: { ...range, layout: 'columns', type: 'float16', reciprocal: false },
    target: { weight: new Uint8Array(512), scales: new Float32Array(32) },
    threads: 1,
  };

  it.each<[string, Partial<RepackJob>, RegExp]>([
    ['too small a weight', { target: { ...job.target, weight: new Uint8Array(511) } }, /exactly the size/],
    ['too few scales', { target: { ...job.target, scales: new Float32Array(16) } }, /exactly the size/],
    [
      'zero points from nowhere',
      { target: { ...job.target, zeroPoints: new Int8Array(32) } },
      /exactly the size/,
    ],
    ['half a word', { k: 60 }, /whole words/],
    ['rows of the wrong length', { codes: { ...job.codes, layout: 'rows', rowBytes: 31 } }, /rowBytes/],
    ['tiles for rows', { scales: { ...job.scales, layout: 'tiles' } }, /geometry/],
    ['a column out of range', { columnOrder: new Int32Array(64).fill(64) }, /0 to k - 1/],
    ['too few columns', { columnOrder: new Int32Array(63) }, /0 to k - 1/],
    ['no rows', { n: 0 }, /out of range/],
    ['no threads', { threads: 0 }, /threads/],
    ['a negative offset', { scales: { ...job.scales, offset: -1 } }, /negative/],
    ['groups of a tensor', { groupN: 0 }, /groupK/],
  ])('%s', (_, changes, message) => {
    expect(() => addon.repackWeight({ ...job, ...changes })).toThrow(message);
  });
});
