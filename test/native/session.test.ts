import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { byteLengthOf, elementTypeOf } from '../../src/graph/data-types.js';
import type { DataType } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import type { NativeInitializer, NativeSession } from '../../src/runtime/addon.js';
import { createSession, ElementType, openAddon } from '../helpers/addon.js';
import { CHILD_TIMEOUT_MS } from '../helpers/cli.js';
import { createTempDir } from '../helpers/temp-dir.js';

const runtime = openAddon();
const { addon } = runtime;

/** A graph of one node that reads one large initializer `w`. */
function buildGraph(
  dataType: DataType,
  shape: readonly number[],
  add: (builder: GraphBuilder, weight: string) => void,
): Uint8Array {
  const builder = GraphBuilder.create(
    'test',
    new Map([
      ['', 21],
      ['fdq', 1],
    ]),
  );
  const file = '/absent';
  const source = { name: 'w', dataType, shape, file, offset: 0, byteLength: byteLengthOf(dataType, shape) };
  add(builder, builder.weight('w', [source]));
  return serializeModel(builder.build());
}

/** One QuantLinear of 8 outputs and 64 inputs, every scale 2. */
function linearModel(
  dataType: DataType,
  shape: readonly number[],
  layer: { readonly format: string; readonly hasScales: boolean },
): Uint8Array {
  const scaleCount = layer.format === 'e4m3' ? 1 : 16;
  const group = layer.format === 'e4m3' ? { n: 128, k: 128 } : { n: 1, k: 0 };
  return buildGraph(dataType, shape, (builder, weight) => {
    const x = builder.input('x', 'float32', ['t', 64]);
    const scales = builder.constant('s', 'float32', [scaleCount], new Float32Array(scaleCount).fill(2));
    const [y] = builder.node({
      opType: 'QuantLinear',
      domain: 'fdq',
      inputs: [x, weight, layer.hasScales ? scales : ''],
      outputs: [{ name: 'y', dataType: 'float32', shape: ['t', 8] }],
      attributes: {
        format: { type: 'string', value: layer.format },
        k: { type: 'int', value: 64 },
        rows: { type: 'ints', value: [8] },
        group_n: { type: 'int', value: group.n },
        group_k: { type: 'int', value: group.k },
        block_k: { type: 'int', value: 0 },
        block_type: { type: 'string', value: '' },
        activation: { type: 'string', value: 'none' },
        activation_scale: { type: 'float', value: 0 },
        compute: { type: 'string', value: 'float32' },
      },
    });
    builder.output(y ?? '');
  });
}

function gatherModel(rows: number, columns: number): Uint8Array {
  return buildGraph('float32', [rows, columns], (builder, weight) => {
    const ids = builder.input('ids', 'int64', ['n']);
    const output = { name: 'y', dataType: 'float32', shape: ['n', columns] } as const;
    builder.output(builder.value({ opType: 'Gather', inputs: [weight, ids], output }));
  });
}

function initializer(dataType: DataType, shape: readonly number[], memory: ArrayBuffer): NativeInitializer {
  const elementType = elementTypeOf(dataType);
  return { name: 'w', elementType, shape, memory, byteOffset: 0, byteLength: memory.byteLength };
}

async function gatherRow(session: NativeSession, row: number, columns: number): Promise<Float32Array> {
  const data = new Float32Array(columns);
  await session.run(
    [{ name: 'ids', elementType: ElementType.int64, shape: [1], data: BigInt64Array.of(BigInt(row)) }],
    [{ name: 'y', elementType: ElementType.float32, shape: [1, columns], data }],
  );
  return data;
}

function residentBytes(): number {
  return process.memoryUsage().rss;
}

describe('a session', () => {
  const sessions: NativeSession[] = [];
  afterEach(async () => {
    await Promise.all(sessions.splice(0).map((session) => session.close()));
  });
  const open = async (...args: Parameters<typeof createSession>): Promise<NativeSession> => {
    const session = await createSession(...args);
    sessions.push(session);
    return session;
  };

  it('uses owned memory in place: a later change is seen by the next run', async () => {
    const memory = addon.allocate(4 * 3 * 4);
    const values = new Float32Array(memory);
    values.set([1, 2, 3, 4], 4);
    const session = await open(runtime, {
      model: gatherModel(3, 4),
      initializers: [initializer('float32', [3, 4], memory)],
    });
    expect(session.inputNames).toEqual(['ids']);
    expect(session.outputNames).toEqual(['y']);
    expect([...(await gatherRow(session, 1, 4))]).toEqual([1, 2, 3, 4]);
    values[5] = 20;
    expect([...(await gatherRow(session, 1, 4))]).toEqual([1, 20, 3, 4]);
  });

  it('takes no second copy of its weights', async () => {
    const columns = 1024;
    const rows = 64 * 1024; // 256 MiB
    const memory = addon.allocate(rows * columns * 4);
    new Float32Array(memory).fill(1);
    const before = residentBytes();
    const session = await open(runtime, {
      model: gatherModel(rows, columns),
      initializers: [initializer('float32', [rows, columns], memory)],
    });
    expect((await gatherRow(session, rows - 1, columns))[0]).toBe(1);
    expect(residentBytes() - before).toBeLessThan(memory.byteLength / 4);
  });

  it('reads weights mapped from a file at any offset', async () => {
    const file = path.join(await createTempDir(), 'weights.bin');
    const values = Float32Array.from({ length: 12 }, (_, i) => i);
    writeFileSync(file, Buffer.concat([Buffer.from('odd'), Buffer.from(values.buffer)]));
    const memory = addon.mapFile(file, 3, 48);
    const session = await open(runtime, {
      model: gatherModel(3, 4),
      initializers: [initializer('float32', [3, 4], memory)],
    });
    expect([...(await gatherRow(session, 2, 4))]).toEqual([8, 9, 10, 11]);
    expect(() => addon.mapFile(file, 4, 48)).toThrow(/ends before byte 52/);
    expect(() => addon.mapFile(`${file}.absent`, 0, 1)).toThrow(/cannot open/);
  });

  it.each([
    ['bfloat16', [8, 64], 'bfloat16'],
    ['float8e4m3fn', [1, 32, 32], 'e4m3'],
    ['int4', [1, 16, 64], 'int4'],
    ['int8', [1, 32, 32], 'int8'],
  ] as const)('hands %s weights to the custom ops', async (dataType, shape, format) => {
    const n = 8;
    const k = 64;
    const model = linearModel(dataType, shape, { format, hasScales: format !== 'bfloat16' });
    const memory = addon.allocate(byteLengthOf(dataType, shape));
    // Code of 1 in every format: bf16 0x3f80, e4m3 0x38, int4 two nibbles 0x11, int8 1.
    const one = { bfloat16: [0x80, 0x3f], e4m3: [0x38], int4: [0x11], int8: [1] }[format];
    new Uint8Array(memory).forEach((_, i, bytes) => (bytes[i] = one[i % one.length] ?? 0));
    const session = await open(runtime, { model, initializers: [initializer(dataType, shape, memory)] });
    const data = new Float32Array(n);
    await session.run(
      [{ name: 'x', elementType: ElementType.float32, shape: [1, k], data: new Float32Array(k).fill(0.5) }],
      [{ name: 'y', elementType: ElementType.float32, shape: [1, n], data }],
    );
    expect([...data]).toEqual(Array(n).fill(format === 'bfloat16' ? 32 : 64));
  });

  it.each([
    ['bfloat16', [8, 64], { format: 'float32', hasScales: false }, /element type/],
    ['int8', [1, 32, 31], { format: 'int8', hasScales: true }, /weight's size/],
    ['int8', [1, 32, 32], { format: 'int8', hasScales: false }, /scales' size/],
  ] as const)('refuses %s weights %j for %j', async (dataType, shape, layer, message) => {
    const initializers = [initializer(dataType, shape, addon.allocate(byteLengthOf(dataType, shape)))];
    const making = createSession(runtime, { model: linearModel(dataType, shape, layer), initializers });
    await expect(making).rejects.toThrow(message);
  });

  it('refuses what would corrupt memory and says why', async () => {
    const memory = addon.allocate(48);
    const weight = initializer('float32', [3, 4], memory);
    expect(() => createSession(runtime, { initializers: [{ ...weight, byteLength: 49 }] })).toThrow(
      /exceed its memory/,
    );
    await expect(createSession(runtime, { model: Uint8Array.of(1, 2, 3) })).rejects.toThrow();
    const session = await open(runtime, { model: gatherModel(3, 4), initializers: [weight] });
    await expect(gatherRow(session, 3, 4)).rejects.toThrow(/out of data bounds|indices/);
    const tooSmall = new Float32Array(2);
    const ids = { name: 'ids', elementType: ElementType.int64, shape: [1], data: BigInt64Array.of(0n) };
    await expect(
      session.run([ids], [{ name: 'y', elementType: ElementType.float32, shape: [1, 4], data: tooSmall }]),
    ).rejects.toThrow();
    expect((await gatherRow(session, 0, 4)).length).toBe(4);
  });

  it('closes twice, and refuses runs afterwards', async () => {
    const weight = initializer('float32', [3, 4], addon.allocate(48));
    const session = await createSession(runtime, { model: gatherModel(3, 4), initializers: [weight] });
    await session.close();
    await session.close();
    await expect(gatherRow(session, 0, 4)).rejects.toThrow(/closed/);
  });

  it('leaves the event loop free while it runs', async () => {
    const session = await open(runtime, busyModel());
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const start = performance.now();
    await runBusy(session);
    const milliseconds = performance.now() - start;
    delay.disable();
    // A run on the JS thread would be one delay as long as itself.
    expect(delay.max / 1e6).toBeLessThan(milliseconds / 4);
  });
});

describe('the addon', () => {
  it('works in several worker threads at once', async () => {
    const script = await writeScript(`
      const { parentPort } = await import('node:worker_threads');
      parentPort.postMessage(await once());
    `);
    const workers = Array.from({ length: 3 }, () => new Worker(script));
    const results = await Promise.all(
      workers.map(
        (worker) =>
          new Promise((resolve, reject) => {
            worker.once('error', reject);
            worker.once('message', resolve);
          }),
      ),
    );
    await Promise.all(workers.map((worker) => worker.terminate()));
    expect(results).toEqual([7, 7, 7]);
  });

  it('loads twice in one process and exits cleanly', async () => {
    const script = await writeScript(`
      const require = createRequire(import.meta.url);
      delete require.cache[addonPath];
      require(addonPath).loadRuntime(libraryPath);
      console.log(await once());
    `);
    expect(execFileSync(process.execPath, [script], { encoding: 'utf8' })).toBe('7\n');
  });

  it('ends cleanly with a worker that is terminated during a run or while it makes a session', async () => {
    const script = await writeScript(`
      const { Worker, isMainThread, parentPort } = await import('node:worker_threads');
      if (isMainThread) {
        for (const early of [false, true]) {
          const worker = new Worker(new URL(import.meta.url), { argv: early ? ['early'] : [] });
          await new Promise((resolve) => worker.once('message', resolve));
          await worker.terminate();
        }
        console.log(await once());
      } else if (process.argv.includes('early')) {
        void once(true);
        parentPort.postMessage('started');
      } else {
        await once(true);
        parentPort.postMessage('started');
      }
    `);
    expect(execFileSync(process.execPath, [script], { encoding: 'utf8', timeout: CHILD_TIMEOUT_MS })).toBe(
      '7\n',
    );
  });

  it('exits at once and cleanly during a run', async () => {
    const script = await writeScript(`
      await once(true);
      process.exit(5);
    `);
    let status: unknown;
    try {
      execFileSync(process.execPath, [script], { stdio: 'pipe', timeout: CHILD_TIMEOUT_MS });
    } catch (error) {
      status = (error as { status: unknown }).status;
    }
    expect(status).toBe(5);
  });
});

const BUSY_SIZE = 1024;
const BUSY_LAYERS = 24;

/** A chain of matrix products: about 50 GFLOP. */
function busyModelBytes(): Uint8Array {
  return buildGraph('float32', [BUSY_SIZE, BUSY_SIZE], (builder, weight) => {
    let x = builder.input('x', 'float32', [BUSY_SIZE, BUSY_SIZE]);
    for (let i = 0; i < BUSY_LAYERS; i++) {
      const output = { name: `y${i}`, dataType: 'float32', shape: [BUSY_SIZE, BUSY_SIZE] } as const;
      x = builder.value({ opType: 'MatMul', inputs: [x, weight], output });
    }
    builder.output(x);
  });
}

function busyModel(): { model: Uint8Array; initializers: readonly NativeInitializer[] } {
  const memory = addon.allocate(BUSY_SIZE * BUSY_SIZE * 4);
  return { model: busyModelBytes(), initializers: [initializer('float32', [BUSY_SIZE, BUSY_SIZE], memory)] };
}

async function runBusy(session: NativeSession): Promise<void> {
  const shape = [BUSY_SIZE, BUSY_SIZE];
  await session.run(
    [{ name: 'x', elementType: ElementType.float32, shape, data: new Float32Array(BUSY_SIZE * BUSY_SIZE) }],
    [
      {
        name: `y${BUSY_LAYERS - 1}`,
        elementType: ElementType.float32,
        shape,
        data: new Float32Array(BUSY_SIZE * BUSY_SIZE),
      },
    ],
  );
}

/**
 * A module with `once(busy)`: loads the addon, makes a session of its own and reads 7 from it, or starts a long run.
 * Written out because worker threads and child processes cannot run this file.
 */
async function writeScript(body: string): Promise<string> {
  const folder = await createTempDir();
  const root = path.join(import.meta.dirname, '..', '..');
  const addonPath = path.join(root, 'custom-ops', 'build', 'Release', 'fdq.node');
  const libraryPath = /\S*libonnxruntime\.so\.1\S*/.exec(readFileSync('/proc/self/maps', 'utf8'))?.[0];
  writeFileSync(path.join(folder, 'small.onnx'), gatherModel(3, 4));
  writeFileSync(path.join(folder, 'busy.onnx'), busyModelBytes());
  const script = path.join(folder, 'script.mjs');
  writeFileSync(
    script,
    `
    import { createRequire } from 'node:module';
    import { readFileSync } from 'node:fs';
    const addonPath = ${JSON.stringify(addonPath)};
    const libraryPath = ${JSON.stringify(libraryPath)};
    const addon = createRequire(import.meta.url)(addonPath);
    async function once(busy = false) {
      addon.loadRuntime(libraryPath);
      const size = busy ? ${BUSY_SIZE} : 4;
      const rows = busy ? size : 3;
      const memory = addon.allocate(rows * size * 4);
      new Float32Array(memory).fill(7);
      const session = await addon.createSession({
        model: readFileSync(${JSON.stringify(folder)} + (busy ? '/busy.onnx' : '/small.onnx')),
        initializers: [{ name: 'w', elementType: 1, shape: [rows, size], memory, byteOffset: 0, byteLength: memory.byteLength }],
        placeholderFolder: ${JSON.stringify(path.join(root, 'custom-ops', 'ort', 'placeholder'))},
        threads: 2, spinning: false, isa: 'scalar',
      });
      const input = busy
        ? { name: 'x', elementType: 1, shape: [size, size], data: new Float32Array(size * size) }
        : { name: 'ids', elementType: 7, shape: [1], data: BigInt64Array.of(1n) };
      const data = new Float32Array(busy ? size * size : size);
      const output = { name: busy ? 'y${BUSY_LAYERS - 1}' : 'y', elementType: 1, shape: busy ? [size, size] : [1, size], data };
      const done = session.run([input], [output]);
      if (!busy) await done;
      const value = data[0];
      if (!busy) await session.close();
      return value;
    }
    ${body}
    `,
  );
  return script;
}
