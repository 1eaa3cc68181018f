import { truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Graph, Initializer, WeightSource } from '../../../src/graph/ir.js';
import { streamedBytes, streamWeights, type WeightStream } from '../../../src/load/stream-weights.js';
import { loadRuntime } from '../../../src/runtime/load-addon.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { graphOfWeights, listOpenFiles } from '../../helpers/weight-stream.js';

const { addon } = loadRuntime();
const N = 64;
const K = 64;
const MATRICES = 12;
const MATRIX_BYTES = N * K * 2;
const ONE = 0x3f80; // bfloat16
const NAN = 0x7fc0;

let folder: string;
let file: string;
let words: Uint16Array;

function matrix(index: number): WeightSource {
  const offset = index * MATRIX_BYTES;
  return { name: `m${index}`, dataType: 'bfloat16', shape: [N, K], file, offset, byteLength: MATRIX_BYTES };
}

/** Every matrix quantized to wint8 but the last, which is used as stored, and the first once more as float32. */
function graphOf(): Graph {
  const initializers: Initializer[] = [];
  const add = (initializer: Initializer): void => void initializers.push(initializer);
  for (let i = 0; i < MATRICES - 1; i++) {
    const layer = { node: `n${i}`, scheme: 'wint8', members: [matrix(i)] };
    const weight = { kind: 'quantized', layer, part: 'weight' } as const;
    add({ name: `w${i}`, dataType: 'int8', shape: [N * K], data: weight });
    const scales = { kind: 'quantized', layer, part: 'scales' } as const;
    add({ name: `s${i}`, dataType: 'float32', shape: [N], data: scales });
  }
  const stored = { kind: 'weight', members: [matrix(MATRICES - 1)] } as const;
  add({ name: 'stored', dataType: 'bfloat16', shape: [N, K], data: stored });
  const widened = { kind: 'weight', members: [matrix(0)], addend: 1 } as const;
  add({ name: 'widened', dataType: 'float32', shape: [N, K], data: widened });
  return graphOfWeights(initializers);
}

function save(): void {
  writeFileSync(file, words);
}

function stream(changes: Partial<WeightStream> = {}): ReturnType<typeof streamWeights> {
  return streamWeights(graphOf(), {
    addon,
    threads: 2,
    open: (name) => open(name),
    onProgress: () => undefined,
    ...changes,
  });
}

beforeEach(async () => {
  folder = await createTempDir();
  file = path.join(folder, 'weights.bin');
  words = new Uint16Array(MATRICES * N * K).fill(ONE);
});

describe('streamWeights', () => {
  it('quantizes, widens and maps, reports every byte once and leaves no file open', async () => {
    save();
    const progress: number[] = [];
    const result = await stream({ onProgress: (done) => progress.push(done) });
    const bytesOf = (name: string): ArrayBuffer =>
      result.find((one) => one.name === name)?.memory as ArrayBuffer;
    expect(new Set(new Int8Array(bytesOf('w3')))).toEqual(new Set([127]));
    expect(new Float32Array(bytesOf('s3'))[0]).toBeCloseTo(1 / 127, 6);
    expect(new Set(new Float32Array(bytesOf('widened')))).toEqual(new Set([2]));
    expect(new Set(new Uint16Array(bytesOf('stored')))).toEqual(new Set([ONE]));
    expect(progress).toHaveLength(MATRICES);
    expect(progress.at(-1)).toBe(MATRICES * MATRIX_BYTES);
    expect(streamedBytes(graphOf())).toBe(MATRICES * MATRIX_BYTES);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('names tensor, row and column of a NaN in the middle', async () => {
    words[5 * N * K + 37 * K + 11] = NAN;
    save();
    await expect(stream()).rejects.toMatchObject({
      code: 'non_finite_weight',
      param: 'm5',
      message: 'm5 holds a NaN or infinity at row 37, column 11.',
    });
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('names the tensor at which a file ends early', async () => {
    save();
    const opened: Promise<unknown>[] = [];
    const failing = stream({
      open: (name) => {
        const handle = open(name);
        opened.push(handle);
        return handle;
      },
      // The mapping is made by now: what is read from here on is short.
      onProgress: (done) => {
        if (done <= 2 * MATRIX_BYTES) truncateSync(file, 5 * MATRIX_BYTES + 100);
      },
    });
    await expect(failing).rejects.toMatchObject({
      code: 'invalid_checkpoint',
      message: `Could not read m5 from ${file}: the file ended early.`,
    });
    expect(opened).toHaveLength(1);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('refuses to map what the file does not hold', async () => {
    save();
    truncateSync(file, MATRICES * MATRIX_BYTES - 1);
    await expect(stream()).rejects.toMatchObject({ code: 'invalid_checkpoint', param: 'stored' });
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('stops between tensors when aborted, starting nothing more', async () => {
    save();
    const abort = new AbortController();
    const reason = new Error('stop');
    const progress: number[] = [];
    const aborted = stream({
      signal: abort.signal,
      onProgress: (done) => {
        progress.push(done);
        abort.abort(reason);
      },
    });
    await expect(aborted).rejects.toBe(reason);
    expect(progress.length).toBeLessThanOrEqual(2);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('reports the first of two damaged tensors, whichever is found first', async () => {
    words[6 * N * K] = NAN;
    words[6 * N * K - 1] = NAN;
    save();
    for (let i = 0; i < 20; i++) await expect(stream()).rejects.toMatchObject({ param: 'm5' });
  });

  it('ends when the progress observer fails', async () => {
    save();
    const broken = new Error('observer');
    let calls = 0;
    const failing = stream({
      onProgress: () => {
        calls++;
        throw broken;
      },
    });
    await expect(failing).rejects.toBe(broken);
    expect(calls).toBeLessThanOrEqual(2);
    expect(listOpenFiles(folder)).toEqual([]);
  });

  it('closes the files already open when another cannot be opened', async () => {
    save();
    const graph = graphOf();
    const elsewhere = { ...matrix(1), file: path.join(folder, 'absent') };
    const initializers = new Map(graph.initializers).set('absent', {
      name: 'absent',
      dataType: 'bfloat16',
      shape: [N, K],
      data: { kind: 'weight', members: [elsewhere] },
    });
    const failing = streamWeights(
      { ...graph, initializers },
      { addon, threads: 2, open: (name) => open(name), onProgress: () => undefined },
    );
    await expect(failing).rejects.toMatchObject({ code: 'ENOENT' });
    expect(listOpenFiles(folder)).toEqual([]);
  });
});
