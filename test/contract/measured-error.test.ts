import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { WeightSource } from '../../src/graph/ir.js';
import { toLayerError, WeightMeter, type ErrorSums } from '../../src/load/weight-meter.js';
import { encodeBf16 } from '../../src/quant/numerics/bf16.js';
import { widenFloats } from '../../src/quant/numerics/floats.js';
import { resolveScheme, SCHEMES } from '../../src/quant/registry.js';
import type { QuantScheme } from '../../src/quant/scheme.js';
import type { Runtime } from '../../src/runtime/load-addon.js';
import { openAddon } from '../helpers/addon.js';
import { createTempDir } from '../helpers/temp-dir.js';

/** Sums of doubles in another order. */
const SUM_TOLERANCE = 1e-11;

const QUANTIZING = SCHEMES.filter(({ native }) => native !== null);
const SHAPES = [
  [1, 1],
  [17, 65],
  [129, 257],
  [300, 200],
] as const;

let runtime: Runtime;
beforeAll(() => {
  runtime = openAddon();
});

/** Values like those of a weight, a row of zeros and a value far from all others. */
function sampleValues(n: number, k: number): readonly number[] {
  let state = 12345;
  return Array.from({ length: n * k }, (_, at) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    const spread = (state / 2 ** 31 - 0.5) * 0.2;
    const row = Math.floor(at / k);
    if (n > 2 && row === 2) return 0;
    return at === n * k - 1 ? 3 : spread;
  });
}

async function storeWeight(n: number, k: number): Promise<{ source: WeightSource; bytes: Uint8Array }> {
  const values = Uint16Array.from(sampleValues(n, k), encodeBf16);
  const bytes = new Uint8Array(values.buffer);
  const file = path.join(await createTempDir(), 'weights');
  const offset = 6;
  await writeFile(file, Buffer.concat([Buffer.alloc(offset), bytes]));
  const source = { name: 'w.weight', dataType: 'bfloat16', shape: [n, k], file, offset } as const;
  return { source: { ...source, byteLength: bytes.length }, bytes };
}

/** The same sums from the oracle's codes. */
function sumsOfOracle(
  scheme: QuantScheme,
  source: WeightSource,
  bytes: Uint8Array,
  tensorScale?: number,
): ErrorSums {
  const original = widenFloats(bytes, 'bfloat16');
  const shared = tensorScale === undefined ? {} : { tensorScale };
  const restored = scheme.dequantize(source, scheme.quantize(source, { firstRow: 0, bytes, ...shared }));
  const sums = { sumW2: 0, sumR2: 0, sumWr: 0, sumE2: 0, maxAbs: 0 };
  for (const [at, w] of original.entries()) {
    const r = restored[at] as number;
    sums.sumW2 += w * w;
    sums.sumR2 += r * r;
    sums.sumWr += w * r;
    sums.sumE2 += (w - r) ** 2;
    sums.maxAbs = Math.max(sums.maxAbs, Math.abs(w - r));
  }
  return { ...sums, saturated: NaN, zeroScales: countZeroScales(scheme, source.shape, restored) };
}

/** Groups of one scale, of the narrowest kind, that are restored as zeros. */
function countZeroScales(
  { native }: QuantScheme,
  [n = 0, k = 0]: readonly number[],
  restored: Float32Array,
): number {
  const { block, groupK = 0, groupN = 0 } = native ?? {};
  const columns = block?.columns ?? (groupK === 0 ? k : groupK);
  const rows = block === undefined ? (groupN === 0 ? n : groupN) : 1;
  let count = 0;
  for (let top = 0; top < n; top += rows) {
    for (let left = 0; left < k; left += columns) {
      let used = false;
      for (let row = top; row < Math.min(n, top + rows); row++) {
        for (let column = left; column < Math.min(k, left + columns); column++) {
          used ||= restored[row * k + column] !== 0;
        }
      }
      if (!used) count++;
    }
  }
  return count;
}

describe.each(QUANTIZING)('measuring $name', (scheme) => {
  it.each(SHAPES)(
    'gives the sums of the oracle for [%i, %i], whatever the number of threads',
    async (n, k) => {
      const { source, bytes } = await storeWeight(n, k);
      const meter = new WeightMeter({ addon: runtime.addon, threads: 2 });
      const single = new WeightMeter({ addon: runtime.addon, threads: 1 });
      try {
        const measured = await meter.measure(source, scheme);
        const expected = sumsOfOracle(scheme, source, bytes);
        for (const key of ['sumW2', 'sumR2', 'sumWr', 'sumE2'] as const) {
          expect(Math.abs(measured[key] - expected[key])).toBeLessThanOrEqual(SUM_TOLERANCE * expected[key]);
        }
        expect(measured.maxAbs).toBe(expected.maxAbs);
        expect(measured.zeroScales).toBe(expected.zeroScales);
        expect(await single.measure(source, scheme)).toEqual(measured);
        // Buffers are used again: what is left in them must not show.
        expect(await meter.measure(source, scheme)).toEqual(measured);
      } finally {
        await meter.close();
        await single.close();
      }
    },
  );
});

describe('measuring fused tensors', () => {
  /** [9, 70] of numbers up to `largest`. */
  async function store(name: string, largest: number): Promise<{ source: WeightSource; bytes: Uint8Array }> {
    const values = Uint16Array.from({ length: 9 * 70 }, (_, at) => encodeBf16(largest * Math.sin(at + 1)));
    values[100] = encodeBf16(largest);
    const file = path.join(await createTempDir(), name);
    const bytes = new Uint8Array(values.buffer);
    await writeFile(file, bytes);
    const source = { name, dataType: 'bfloat16', shape: [9, 70], file, offset: 0 } as const;
    return { source: { ...source, byteLength: bytes.length }, bytes };
  }

  it('gives the sums of the oracle under the tensor scale they share, each read once for it', async () => {
    const stored = await Promise.all([store('q', 1), store('k', 50), store('v', 3e-5)]);
    const fused = stored.map(({ source }) => source);
    let measured = 0;
    const addon = {
      ...runtime.addon,
      measureMagnitude: (...args: Parameters<typeof runtime.addon.measureMagnitude>) => {
        measured++;
        return runtime.addon.measureMagnitude(...args);
      },
    };
    const meter = new WeightMeter({ addon, threads: 2 });
    onTestFinished(() => meter.close());
    const scheme = resolveScheme('nvfp4');
    const tensorScale = scheme.findTensorScale?.(50) ?? NaN;
    for (const { source, bytes } of stored) {
      const found = await meter.measure(source, scheme, fused);
      const expected = sumsOfOracle(scheme, source, bytes, tensorScale);
      expect(Math.abs(found.sumE2 - expected.sumE2)).toBeLessThanOrEqual(SUM_TOLERANCE * expected.sumE2);
      expect(found.zeroScales).toBe(expected.zeroScales);
      expect(await meter.measure(source, scheme)).toEqual(await meter.measure(source, scheme, [source]));
    }
    expect(measured).toBe(3);
    // All of the smallest lies below the least group scale of what is a million times larger.
    const [, , v] = fused as [WeightSource, WeightSource, WeightSource];
    const lost = toLayerError(await meter.measure(v, scheme, fused)).frobenius;
    expect(lost).toBeGreaterThan(3 * toLayerError(await meter.measure(v, scheme)).frobenius);
  });

  it('asks for no other tensor in a scheme without a scale to share', async () => {
    const { source } = await store('q', 1);
    const absent = { ...source, name: 'k', file: '/absent' };
    const meter = new WeightMeter({ addon: runtime.addon, threads: 1 });
    onTestFinished(() => meter.close());
    for (const name of ['fp8_per_tensor', 'mxfp4', 'wint4']) {
      const scheme = resolveScheme(name);
      expect(await meter.measure(source, scheme, [source, absent])).toEqual(
        await meter.measure(source, scheme),
      );
    }
  });
});

describe('saturation', () => {
  const sums = { sumW2: 4, sumR2: 4, sumWr: 4, maxAbs: 0, saturated: 0, zeroScales: 0 };

  it('counts originals that lie half a step beyond the largest code', async () => {
    // Scale 1 by the first row's largest value; the packed scale is then halved behind the quantizer's back.
    const { addon } = runtime;
    const values = Float32Array.from({ length: 64 }, (_, at) => [127, 63.9, -63.4, -64.1, 1][at] ?? 0);
    const job = {
      source: { bytes: new Uint8Array(values.buffer) },
      dataType: 'float32',
      n: 1,
      k: 64,
      format: 'int8',
      groupN: 1,
      groupK: 0,
      threads: 1,
      weight: new Uint8Array(16 * 64),
      scales: new Float32Array(16),
    } as const;
    await addon.quantize({ ...job, packed: true });
    const compared = await addon.compareWeight(job);
    if (compared.status !== 'ok') throw new Error(compared.status);
    expect(compared.saturated).toBe(0);
    expect(compared.maxAbs).toBeCloseTo(0.4, 5);
    job.scales.fill(0.5);
    // 63.75 is 127.5 steps of a half: 127, 63.9 and -64.1 lie beyond it.
    expect(await addon.compareWeight(job)).toMatchObject({ saturated: 3 });
  });

  it.each([
    [0.5, 2],
    [-0.5, 0],
  ])('is beyond 7.5 and -8.5 steps of an int4 scale of %f', async (scale, expected) => {
    const values = Float32Array.from({ length: 64 }, (_, at) => [4.2, 3.8, 3.7, 1, -3.7][at] ?? 0);
    const job = {
      source: { bytes: new Uint8Array(values.buffer) },
      dataType: 'float32',
      n: 1,
      k: 64,
      format: 'int4',
      groupN: 1,
      groupK: 0,
      threads: 1,
      weight: new Uint8Array(16 * 32),
      scales: new Float32Array(16).fill(scale),
    } as const;
    expect(await runtime.addon.compareWeight(job)).toMatchObject({ saturated: expected });
  });

  it('is refused sizes that do not fit', async () => {
    const job = {
      source: { bytes: new Uint8Array(256) },
      dataType: 'float32',
      n: 1,
      k: 64,
      format: 'int8',
      groupN: 1,
      groupK: 0,
      threads: 1,
      weight: new Uint8Array(1023),
      scales: new Float32Array(16),
    } as const;
    expect(() => runtime.addon.compareWeight(job)).toThrow(/exactly the size/);
    expect(() => runtime.addon.compareWeight({ ...job, weight: new Uint8Array(1024), k: 63 })).toThrow(
      /n \* k elements|exactly the size/,
    );
  });

  it('is infinite decibels without an error, and none of a matrix of zeros', () => {
    expect(toLayerError({ ...sums, sumE2: 0 })).toMatchObject({ frobenius: 0, sqnrDb: Infinity, cosine: 1 });
    expect(toLayerError({ ...sums, sumW2: 0, sumR2: 0, sumWr: 0, sumE2: 0 })).toMatchObject({
      frobenius: 0,
      cosine: 1,
    });
    expect(toLayerError({ ...sums, sumE2: 0.04 }).sqnrDb).toBeCloseTo(20, 10);
  });
});
