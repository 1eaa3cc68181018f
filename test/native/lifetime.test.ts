import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { serializeModel } from '../../src/graph/onnx.js';
import type { NativeInitializer, NativeSession, NativeTensor, QuantizeJob } from '../../src/runtime/addon.js';
import { createSession, ElementType, openAddon } from '../helpers/addon.js';
import { CHILD_TIMEOUT_MS } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

const runtime = openAddon();
const { addon } = runtime;
const ROWS = 256;
const COLUMNS = 1024;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** y = w[ids] */
function gatherModel(): Uint8Array {
  const builder = GraphBuilder.create('test', new Map([['', 21]]));
  const source = { dataType: 'float32', shape: [ROWS, COLUMNS], file: '/absent', offset: 0 } as const;
  const weight = builder.weight('w', [{ ...source, name: 'w', byteLength: ROWS * COLUMNS * 4 }]);
  const ids = builder.input('ids', 'int64', ['n']);
  const output = { name: 'y', dataType: 'float32', shape: ['n', COLUMNS] } as const;
  builder.output(builder.value({ opType: 'Gather', inputs: [weight, ids], output }));
  return serializeModel(builder.build());
}

function weightOf(value: number): NativeInitializer {
  const memory = addon.allocate(ROWS * COLUMNS * 4);
  new Float32Array(memory).fill(value);
  const shape = [ROWS, COLUMNS];
  return { name: 'w', elementType: 1, shape, memory, byteOffset: 0, byteLength: memory.byteLength };
}

function idsTensor(rows: number): NativeTensor {
  const data = new BigInt64Array(rows);
  return { name: 'ids', elementType: ElementType.int64, shape: [rows], data };
}

function outputTensor(rows: number): NativeTensor {
  const data = new Float32Array(rows * COLUMNS);
  return { name: 'y', elementType: ElementType.float32, shape: [rows, COLUMNS], data };
}

async function usingSession(use: (session: NativeSession) => Promise<void>): Promise<void> {
  const session = await createSession(runtime, { model: gatherModel(), initializers: [weightOf(3)] });
  try {
    await use(session);
  } finally {
    await session.close();
  }
}

describe('memory of a session', () => {
  it('lives although the caller changes the lists it was handed', async () => {
    const initializers = [weightOf(3)];
    const session = await createSession(runtime, { model: gatherModel(), initializers });
    initializers.length = 0;
    const rows = 2000;
    const inputs = [idsTensor(rows)];
    const output = outputTensor(rows) as { data: ArrayBufferView } & NativeTensor;
    const { data } = output;
    const done = session.run(inputs, [output]);
    inputs.length = 0;
    output.data = new Float32Array();
    for (let i = 0; i < 3; i++) collectGarbage();
    await done;
    expect(new Set(data as Float32Array)).toEqual(new Set([3]));
    await session.close();
  });

  it('is given back by close: 200 sessions leave nothing behind', async () => {
    const model = gatherModel();
    const once = async (): Promise<void> => {
      const session = await createSession(runtime, { model, initializers: [weightOf(3)], threads: 1 });
      await session.run([idsTensor(4)], [outputTensor(4)]);
      await session.close();
      await session.close();
    };
    const measure = (): number => {
      collectGarbage();
      return process.memoryUsage().rss;
    };
    for (let i = 0; i < 20; i++) await once();
    const before = measure();
    for (let i = 0; i < 200; i++) await once();
    // 200 MiB of weights went through.
    expect(measure() - before).toBeLessThan(40 * 1024 ** 2);
  });

  it('survives close, and close again, during a run', async () => {
    await usingSession(async (session) => {
      const rows = 4000;
      const output = outputTensor(rows);
      const outcomes = await Promise.allSettled([
        session.run([idsTensor(rows)], [output]),
        session.close(),
        session.close(),
        session.run([idsTensor(rows)], [outputTensor(rows)]),
      ]);
      expect(outcomes.slice(1, 3).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
      if (outcomes[0].status === 'fulfilled')
        expect(new Set(output.data as Float32Array)).toEqual(new Set([3]));
      await expect(session.run([idsTensor(1)], [outputTensor(1)])).rejects.toThrow(/closed/);
    });
  });
});

describe('arguments', () => {
  it.each([
    ['an unknown element type', { elementType: 99 }, /ids: unsupported elementType 99/],
    ['strings', { elementType: 8 }, /ids: unsupported elementType 8/],
    ['a negative dimension', { shape: [-1] }, /ids: negative dimension -1/],
    ['a fraction', { shape: [1.5] }, /shape must be an array of integers/],
    ['NaN', { shape: [NaN] }, /shape must be an array of integers/],
    ['no data', { data: undefined }, /data must be a typed array/],
  ])('refuses %s in a tensor', async (_what, change, message) => {
    await usingSession(async (session) => {
      const input = { ...idsTensor(1), ...change } as NativeTensor;
      expect(() => session.run([input], [outputTensor(1)])).toThrow(message);
      expect(() => session.run(undefined as never, [])).toThrow(/must be arrays of tensors/);
      expect(() => session.run([null as never], [])).toThrow(/must be an object/);
      await session.run([idsTensor(1)], [outputTensor(1)]);
    });
  });

  it('reports a shape too large for its data, and a huge one, with the reason', async () => {
    await usingSession(async (session) => {
      for (const shape of [[2], [2 ** 52], [2 ** 32, 2 ** 32, 2 ** 32]]) {
        await expect(session.run([{ ...idsTensor(1), shape }], [outputTensor(1)])).rejects.toThrow(/\w+ \w+/);
      }
    });
  });

  it('refuses resizable memory: shrinking it would unmap what a run uses', async () => {
    await usingSession((session) => {
      const Resizable = ArrayBuffer as unknown as new (
        n: number,
        o: { maxByteLength: number },
      ) => ArrayBuffer;
      const data = new BigInt64Array(new Resizable(8, { maxByteLength: 16 }));
      expect(() => session.run([{ ...idsTensor(1), data }], [outputTensor(1)])).toThrow(/resizable/);
      return Promise.resolve();
    });
  });

  it('refuses a KV cache whose size overflows', async () => {
    const size = 2 ** 40;
    const kvCache = {
      dataType: 'float32',
      numLayers: size,
      numBlocks: size,
      numKvHeads: 1,
      headDim: 1,
      byteLength: 2 ** 51,
    } as const;
    await expect(createSession(runtime, { kvCache })).rejects.toThrow(/overflows/);
    await expect(
      createSession(runtime, { kvCache: { ...kvCache, numLayers: 1, numBlocks: 2 ** 44 } }),
    ).rejects.toThrow(/cannot allocate a KV cache of \d+ bytes/);
  });

  it('refuses two steps at once on one KV cache', async () => {
    const kvCache = {
      dataType: 'float32',
      numLayers: 1,
      numBlocks: 1,
      numKvHeads: 1,
      headDim: 16,
      byteLength: 16 * 2 * 16 * 4,
    } as const;
    const options = { model: gatherModel(), initializers: [weightOf(3)], kvCache };
    const session = await createSession(runtime, options);
    const rows = 4000;
    const runs = Array.from({ length: 4 }, () => session.run([idsTensor(rows)], [outputTensor(rows)]));
    const outcomes = await Promise.allSettled(runs);
    const refused = outcomes.filter((one) => one.status === 'rejected');
    for (const { reason } of refused) expect(String(reason)).toMatch(/one step at a time/);
    expect(refused.length).toBeLessThan(4);
    await session.run([idsTensor(1)], [outputTensor(1)]);
    await session.close();
  });

  it('refuses sizes and descriptors that are not whole numbers in range', () => {
    for (const size of [-1, 1.5, NaN, Infinity, 2 ** 60]) {
      expect(() => addon.allocate(size)).toThrow(/whole number of bytes/);
    }
    const target = new Uint8Array(4);
    expect(() => addon.read({ fd: 2 ** 32, offset: 0, byteLength: 4, target })).toThrow(/fd is out of range/);
    const linear = {
      format: 'int8',
      memberRows: [16],
      k: 64,
      groupN: 1,
      groupK: 0,
      activation: 'none',
    } as const;
    const x = new Float32Array(64);
    const rest = { compute: 'float32', isa: 'scalar', threads: 1, x, tokens: 1 } as const;
    const weight = new Uint8Array(16 * 64);
    const scales = new Float32Array(16);
    expect(() => addon.runLinear({ ...linear, ...rest, weight: weight.subarray(1), scales })).toThrow(
      /weight's/,
    );
    expect(() => addon.runLinear({ ...linear, ...rest, weight })).toThrow(/scales' size/);
    expect(() => addon.runLinear({ ...linear, ...rest, weight, scales, memberRows: [-16] })).toThrow(
      /at least 1/,
    );
  });
});

describe('jobs', () => {
  it('quantize side by side on one pool with the same result as alone', async () => {
    const [n, k] = [512, 512];
    const bytes = new Uint8Array(Uint16Array.from({ length: n * k }, (_, i) => 0x3f00 + (i % 251)).buffer);
    const make = (): QuantizeJob => ({
      source: { bytes },
      dataType: 'bfloat16',
      n,
      k,
      format: 'int8',
      groupN: 1,
      groupK: 0,
      packed: true,
      weight: new Uint8Array(n * k),
      scales: new Float32Array(n),
      threads: 2,
    });
    const alone = make();
    await addon.quantize(alone);
    const jobs = Array.from({ length: 6 }, make);
    await Promise.all(jobs.map((job) => addon.quantize(job)));
    for (const job of jobs) expect(Buffer.compare(job.weight, alone.weight)).toBe(0);
  });

  // Node waits for the work of a terminated worker and then completes it where no JS may run any more.
  it('end with a worker that is terminated, and with the process', async () => {
    const folder = await createTempDir();
    const script = path.join(folder, 'script.cjs');
    const addonPath = path.join(
      import.meta.dirname,
      '..',
      '..',
      'custom-ops',
      'build',
      'Release',
      'fdq.node',
    );
    writeFileSync(
      script,
      `
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      const addon = require(${JSON.stringify(addonPath)});
      const k = 4096;
      const startJobs = (n) => {
        for (let i = 0; i < 6; i++) {
          addon.quantize({
            source: { bytes: new Uint8Array(n * k * 2) }, dataType: 'bfloat16', n, k, format: 'int8', groupN: 1,
            groupK: 0, packed: true, weight: new Uint8Array(addon.allocate(n * k)), scales: new Float32Array(n), threads: 2,
          });
        }
        addon.read({ fd: 9999, offset: 0, byteLength: 4, target: new Uint8Array(4) });
        addon.measureReadBandwidth(2, 1 << 24);
      };
      if (isMainThread) {
        (async () => {
          for (let i = 0; i < 4; i++) {
            const worker = new Worker(__filename);
            await new Promise((resolve) => worker.once('message', resolve));
            await worker.terminate();
          }
          console.log('workers ended');
          startJobs(512);
          process.exit(0);
        })();
      } else {
        startJobs(512);
        parentPort.postMessage('started');
      }
      `,
    );
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [script], {
      timeout: CHILD_TIMEOUT_MS,
    });
    expect({ stdout, stderr }).toEqual({ stdout: 'workers ended\n', stderr: '' });
  });
});
