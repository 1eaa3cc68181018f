import { existsSync } from 'node:fs';
import { copyFile, cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openCheckpoint, readCheckpoint, type Checkpoint } from '../../../src/hub/checkpoint.js';
import { findModel, locateModel } from '../../../src/hub/locate.js';
import { openRemoteModel } from '../../../src/hub/remote-source.js';
import { inspectModel, type InspectOptions } from '../../../src/inspect/inspect.js';
import type { InspectReport } from '../../../src/inspect/report.js';
import { convertFixture } from '../../helpers/convert-fixture.js';
import { fixtureFolder, loadFolder, runStep } from '../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../helpers/genai-model.js';
import { startHubServer, type Fault, type HubServer } from '../../helpers/hub-server.js';
import { createRandom } from '../../helpers/stored-formats.js';
import { openSample, SAMPLE_MODULE, storedCase } from '../../helpers/stored-sample.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { writeSafetensors, type TensorSpec } from '../../helpers/write-safetensors.js';
import { catchError } from '../hub/catch-error.js';

const ID = 'org/tiny';
const QWEN3 = fixtureFolder('qwen3');
const WEIGHTS = 'model.safetensors';
/** The length before the header. */
const PREFIX_BYTES = 8;

interface Hub {
  readonly server: HubServer;
  readonly cacheDir: string;
  readonly options: InspectOptions;
  inspect(changes?: Partial<InspectOptions>): Promise<InspectReport>;
}

async function startHub(source: string, faults: readonly Fault[] = [], token?: string): Promise<Hub> {
  const cacheDir = path.join(await createTempDir(), 'hub');
  const server = await startHubServer({
    models: { [ID]: source },
    faults,
    ...(token === undefined ? {} : { token }),
  });
  onTestFinished(() => server.close());
  const env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: cacheDir, HF_HOME: cacheDir };
  const options: InspectOptions = {
    model: ID,
    locate: { env, retry: { attempts: 0, delayMs: 0 } },
    quantization: {},
    dtype: 'auto',
    memory: { threads: 1, utilization: 0.9 },
    measure: false,
  };
  return {
    server,
    cacheDir,
    options,
    inspect: async (changes = {}) => (await inspectModel({ ...options, ...changes })).report,
  };
}

async function headerBytes(file: string): Promise<number> {
  return Number((await readFile(file)).readBigUInt64LE());
}

/** Two shards and an index in place of the only file. */
async function splitWeights(dir: string): Promise<void> {
  const { tensors } = await openCheckpoint({ reference: dir, dir });
  const bytes = await readFile(path.join(dir, WEIGHTS));
  const weight_map: Record<string, string> = {};
  const shards: Record<string, TensorSpec>[] = [{}, {}];
  for (const [index, { name, dtype, shape, offset, byteLength }] of [...tensors.values()].entries()) {
    weight_map[name] = `part-${index % 2}.safetensors`;
    (shards[index % 2] as Record<string, TensorSpec>)[name] = {
      dtype,
      shape,
      data: bytes.subarray(offset, offset + byteLength),
    };
  }
  for (const [index, shard] of shards.entries())
    await writeSafetensors(path.join(dir, `part-${index}.safetensors`), shard);
  await rm(path.join(dir, WEIGHTS));
  await writeFile(path.join(dir, `${WEIGHTS}.index.json`), JSON.stringify({ weight_map }));
}

/** What differs between a folder and the same files elsewhere. */
function withoutPlace(report: InspectReport): unknown {
  const { model, memory: _, ...rest } = report;
  return { ...rest, model: { ...model, reference: '', path: '', revision: null } };
}

describe('a checkpoint on the hub that is not in the cache', () => {
  it('is described from ranges of its headers, as the folder is, and leaves nothing behind', async () => {
    const hub = await startHub(QWEN3);
    const quantization = { quantization: 'wint8' };
    const report = await hub.inspect({ quantization });
    const local = await inspectModel({ ...hub.options, model: QWEN3, quantization });
    expect(withoutPlace(report)).toEqual(withoutPlace(local.report));
    const commit = hub.server.getCommit(ID);
    expect(report.model).toMatchObject({
      reference: ID,
      path: `hf:${ID}@${commit}`,
      revision: commit,
      kind: 'checkpoint',
    });
    const header = await headerBytes(path.join(QWEN3, WEIGHTS));
    const transfers = hub.server.requests.filter(
      ({ path: requested, server }) => server === 'cdn' && requested.includes(WEIGHTS),
    );
    expect(transfers.map(({ range, bytesSent }) => [range, bytesSent])).toEqual([
      [`bytes=0-${PREFIX_BYTES - 1}`, PREFIX_BYTES],
      [`bytes=${PREFIX_BYTES}-${PREFIX_BYTES + header - 1}`, header],
    ]);
    expect(hub.server.requests.filter(({ path: requested }) => requested.includes('tokenizer'))).toEqual([]);
    expect(existsSync(hub.cacheDir)).toBe(false);
  });

  it('is read in shards', async () => {
    const source = await createTempDir();
    await cp(QWEN3, source, { recursive: true });
    await splitWeights(source);
    const hub = await startHub(source);
    const local = await inspectModel({ ...hub.options, model: source });
    expect(withoutPlace(await hub.inspect())).toEqual(withoutPlace(local.report));
    const ranges = hub.server.requests.filter(({ range, server }) => range !== undefined && server === 'cdn');
    expect(ranges).toHaveLength(4);
  });

  it('is read with the small tensors that decide about a quantized one', async () => {
    const { write, config } = storedCase('gptq v1, act-order');
    const { tensors } = write(128, 128, createRandom(1));
    const local = await openSample({ config, tensors });
    const hub = await startHub(local.dir);
    const { locate } = hub.options;
    const found = await findModel(ID, locate);
    if (found.source !== 'hub') throw new Error('the cache is not empty');
    const remote = await openRemoteModel(found.repo, found.settings, { reference: ID });
    const checkpoint = await readCheckpoint(remote.location, remote.source);
    const stored = (opened: Checkpoint): unknown =>
      opened.tensors.get(`${SAMPLE_MODULE}.weight`)?.stored?.format;
    expect(stored(checkpoint)).toEqual(stored(local));
    expect(stored(checkpoint)).toHaveProperty('columnOrder');
    const order = (tensors['g_idx'] as Required<TensorSpec>).data.byteLength;
    expect(hub.server.requests.map(({ bytesSent, range }) => range !== undefined && bytesSent)).toContain(
      order,
    );
  });

  it('is downloaded to be measured', async () => {
    const hub = await startHub(QWEN3);
    const files: string[] = [];
    const locate = {
      ...hub.options.locate,
      onProgress: ({ file }: { file: string }) => void files.push(file),
    };
    const report = await hub.inspect({ measure: true, quantization: { quantization: 'wint8' }, locate });
    expect(report.totals.error?.sqnrDb).toBeGreaterThan(20);
    expect(files).toContain(WEIGHTS);
    const snapshot = path.join(hub.cacheDir, 'models--org--tiny', 'snapshots', hub.server.getCommit(ID));
    expect(await readdir(snapshot)).toContain(WEIGHTS);
  });

  it('is taken from the cache where it is complete there', async () => {
    const hub = await startHub(QWEN3);
    await hub.inspect({ measure: true, quantization: { quantization: 'wint8' } });
    const before = hub.server.requests.length;
    expect((await hub.inspect()).model.path).toContain('snapshots');
    expect(hub.server.requests).toHaveLength(before);
  });

  it('is not asked for offline', async () => {
    const hub = await startHub(QWEN3);
    const locate = { ...hub.options.locate, offline: true };
    expect((await catchError(hub.inspect({ locate }))).code).toBe('offline');
    expect(hub.server.requests).toEqual([]);
  });
});

describe('a header that cannot be fetched alone', () => {
  it.each<[string, Fault, string, RegExp]>([
    ['no such model', { match: '/api/', status: 404 }, 'model_not_found', /does not exist/],
    ['gated', { match: 'resolve/', status: 403 }, 'download_failed', /gated \(HTTP 403\)/],
    ['private', { match: '/api/', status: 401 }, 'model_not_found', /or is private \(HTTP 401\)/],
    ['whole files only', { match: WEIGHTS, ignoresRange: true }, 'download_failed', /sent the whole/],
    ['cut off', { match: WEIGHTS, cutAfter: 4 }, 'download_failed', /connection to .* failed/],
    [
      'another size than listed',
      { match: `tree:${WEIGHTS}`, claimedSize: 10_000_000 },
      'download_failed',
      /Cannot read the header of "model\.safetensors" alone: .* not "bytes 0-7\/10000000"/,
    ],
    [
      'smaller than a header',
      { match: `tree:${WEIGHTS}`, claimedSize: 7 },
      'invalid_checkpoint',
      /it has 7 bytes/,
    ],
    ['a damaged length', { match: WEIGHTS, corrupts: true }, 'invalid_checkpoint', /Not a valid safetensors/],
    ['a damaged config', { match: 'config.json', corrupts: true }, 'download_failed', /arrived damaged/],
  ])('%s', async (_, fault, code, message) => {
    const hub = await startHub(QWEN3, [fault]);
    const error = await catchError(hub.inspect());
    expect(error).toMatchObject({ code, exitCode: 3 });
    expect(error.message).toMatch(message);
    expect(error.suggestions.length).toBeGreaterThan(0);
    expect(existsSync(hub.cacheDir)).toBe(false);
  });

  it('is tried again when the server is busy', async () => {
    const hub = await startHub(QWEN3, [{ match: WEIGHTS, status: 503, times: 2 }]);
    const locate = { ...hub.options.locate, retry: { attempts: 3, delayMs: 0 } };
    expect((await hub.inspect({ locate })).model.kind).toBe('checkpoint');
  });

  it('claims more than headers may have: nothing is allocated', async () => {
    const dir = await createTempDir();
    await copyFile(path.join(QWEN3, 'config.json'), path.join(dir, 'config.json'));
    const file = Buffer.alloc(PREFIX_BYTES + 2, '{}');
    file.writeBigUInt64LE(2n ** 40n);
    await writeFile(path.join(dir, WEIGHTS), file);
    const hub = await startHub(dir);
    expect((await catchError(hub.inspect())).message).toMatch(/more than the allowed 100000000/);
  });
});

describe('other layouts on the hub', () => {
  it('a folder of fdq convert is downloaded, inspected and served', async () => {
    const dir = await createTempDir();
    await convertFixture('llama_tied', dir, 'wint8');
    const out = path.join(dir, 'out');
    const hub = await startHub(out);
    expect(withoutPlace(await hub.inspect())).toEqual(
      withoutPlace((await inspectModel({ ...hub.options, model: out })).report),
    );
    await expectSameLogits(hub, out);
    const snapshot = path.join(hub.cacheDir, 'models--org--tiny', 'snapshots', hub.server.getCommit(ID));
    expect(await readdir(snapshot)).toEqual(
      (await readdir(out)).filter((name) => !/^(?:golden|special_tokens)/.test(name)),
    );
  });

  it('a model of onnxruntime-genai is downloaded with its external data, inspected and served', async () => {
    const source = await createTempDir();
    await writeGenaiModel('llama', source, {});
    const hub = await startHub(source);
    const report = await hub.inspect({ quantization: { quantization: 'wint8' } });
    expect(report.model.kind).toBe('genai');
    await expectSameLogits(hub, source);
  });

  it('is completed when a file of it is not there', async () => {
    const source = await createTempDir();
    await writeGenaiModel('llama', source, {});
    const hub = await startHub(source, [{ match: 'model.onnx.data', cutAfter: 100, times: 1 }]);
    expect((await catchError(hub.inspect())).code).toBe('download_failed');
    expect((await hub.inspect()).model.kind).toBe('genai');
  });

  it('one that lacks its weights is refused before anything large is fetched', async () => {
    const dir = await createTempDir();
    await convertFixture('llama_tied', dir, 'wint8');
    const out = path.join(dir, 'out');
    await rm(path.join(out, 'weights.bin'));
    const hub = await startHub(out);
    const error = await catchError(hub.inspect());
    expect(error.code).toBe('invalid_checkpoint');
    expect(error.message).toMatch(/org\/tiny lacks the weight file "weights\.bin" that its fdq\.json names/);
    expect(hub.server.requests.filter(({ path: requested }) => requested.includes('onnx'))).toEqual([]);
  });

  it('convert refuses them before their weights are fetched', async () => {
    const dir = await createTempDir();
    await convertFixture('llama_tied', dir, 'wint8');
    const hub = await startHub(path.join(dir, 'out'));
    const error = await catchError(locateModel(ID, { ...hub.options.locate, isCheckpoint: true }));
    expect(error.code).toBe('unsupported_model');
    expect(hub.server.requests.filter(({ path: requested }) => requested.includes('weights.bin'))).toEqual(
      [],
    );
  });
});

async function expectSameLogits(hub: Hub, folder: string): Promise<void> {
  const step = [{ ids: [1, 2, 3], start: 0, blocks: [0], rows: [2] }];
  const logits = [];
  for (const [model, locate] of [
    [ID, hub.options.locate],
    [folder, {}],
  ] as const) {
    const loaded = await loadFolder(model, { ...(locate === undefined ? {} : { locate }) });
    logits.push(await runStep(loaded, step));
    await loaded.runner.close();
  }
  expect(logits[0]).toEqual(logits[1]);
}
