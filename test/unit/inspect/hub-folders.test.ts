import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { HUB_GRAMMAR } from '../../../src/hub/reference.js';
import { locateModel, type LocateOptions } from '../../../src/hub/locate.js';
import { inspectModel } from '../../../src/inspect/inspect.js';
import { maxAbsDifference, loadFolder, fixtureFolder, runStep } from '../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../helpers/genai-model.js';
import { startHubServer, type HubServer } from '../../helpers/hub-server.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from '../hub/catch-error.js';

const ID = 'org/tiny-onnx';
const FOLDER = 'cpu_and_mobile/cpu-int4-rtn-block-32';

let root: string;
let model: string;
beforeEach(async () => {
  root = await createTempDir();
  model = path.join(root, FOLDER);
  await mkdir(model, { recursive: true });
  await writeGenaiModel('llama', model, {});
  // As such repositories have them; no model is made of these.
  await writeFile(path.join(root, 'config.json'), '{}');
  await writeFile(path.join(root, 'README.md'), '# Tiny');
  for (const name of ['a', 'b', 'c']) await writeFile(path.join(root, `${name}.txt`), name);
});

interface Hub {
  readonly server: HubServer;
  readonly cacheDir: string;
  readonly locate: LocateOptions;
}

async function startHub(): Promise<Hub> {
  const cacheDir = path.join(await createTempDir(), 'hub');
  const server = await startHubServer({ models: { [ID]: root } });
  onTestFinished(() => server.close());
  const env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: cacheDir, HF_HOME: cacheDir };
  return { server, cacheDir, locate: { env, retry: { attempts: 0, delayMs: 0 } } };
}

async function kindOf(reference: string, { locate }: Hub): Promise<string> {
  const memory = { threads: 1, utilization: 0.9 };
  const options = {
    model: reference,
    locate,
    quantization: {},
    dtype: 'auto',
    memory,
    measure: false,
  } as const;
  return (await inspectModel(options)).report.model.kind;
}

async function addOther(): Promise<string> {
  const other = path.join(root, 'cuda', 'cuda-fp16');
  await cp(model, other, { recursive: true });
  return other;
}

describe('a repository whose models lie in folders', () => {
  it('is the only one of onnxruntime-genai that it holds', async () => {
    const hub = await startHub();
    expect(await kindOf(ID, hub)).toBe('genai');
    const located = await locateModel(ID, hub.locate);
    expect(located).toMatchObject({ source: 'cache', revision: hub.server.getCommit(ID) });
    expect(located.dir.endsWith(`/${FOLDER}`)).toBe(true);
    for (const name of ['model.onnx', 'model.onnx.data', 'genai_config.json']) {
      const bytes = await readFile(path.join(located.dir, name));
      expect(bytes.equals(await readFile(path.join(model, name)))).toBe(true);
    }
    const chunk = { ids: [1, 2, 3], start: 0, blocks: [0], rows: [2] };
    const logits = async (dir: string): Promise<Float32Array> => {
      const loaded = await loadFolder(dir, {});
      onTestFinished(() => loaded.runner.close());
      return (await runStep(loaded, [chunk]))[0] ?? new Float32Array();
    };
    expect(maxAbsDifference(await logits(located.dir), await logits(model))).toBe(0);
  });

  it('is found in the cache without asking again', async () => {
    const hub = await startHub();
    await locateModel(ID, hub.locate);
    const before = hub.server.requests.length;
    await locateModel(ID, { ...hub.locate, offline: true });
    await locateModel(`hf:${ID}/${FOLDER}`, { ...hub.locate, offline: true });
    expect(hub.server.requests).toHaveLength(before);
    await rm(
      path.join(
        hub.cacheDir,
        'models--org--tiny-onnx',
        'snapshots',
        hub.server.getCommit(ID),
        FOLDER,
        'model.onnx.data',
      ),
    );
    expect((await catchError(locateModel(ID, { ...hub.locate, offline: true }))).code).toBe('offline');
    expect((await locateModel(ID, hub.locate)).source).toBe('download');
  });

  it('is refused when there are several, with their names and how to name one', async () => {
    await addOther();
    const hub = await startHub();
    const error = await catchError(locateModel(ID, hub.locate));
    expect(error).toMatchObject({ code: 'model_not_found', param: ID });
    expect(error.message).toContain('holds 2 models of onnxruntime-genai, in');
    expect(error.message).toContain(FOLDER);
    expect(error.message).toContain('cuda/cuda-fp16');
    expect(error.suggestions[0]).toBe(`Name the folder of one: hf:${ID}/${FOLDER}`);
    expect(hub.server.requests.filter(({ path: asked }) => asked.includes('/resolve/'))).toEqual([]);
  });

  it('is the one that was named, of which alone files are fetched', async () => {
    await addOther();
    const hub = await startHub();
    const reference = `hf:${ID}/cuda/cuda-fp16@main`;
    expect(await kindOf(reference, hub)).toBe('genai');
    const fetched = hub.server.requests
      .map(({ path: asked }) => asked)
      .filter((asked) => asked.includes('/resolve/'));
    expect(fetched.length).toBeGreaterThan(2);
    expect(fetched.filter((asked) => !asked.includes('/cuda/cuda-fp16/'))).toEqual([]);
    // What was fetched once is the only one in the cache; with a second one it has to be said which.
    expect((await locateModel(ID, { ...hub.locate, offline: true })).dir).toContain('cuda-fp16');
    await locateModel(`hf:${ID}/${FOLDER}`, hub.locate);
    const error = await catchError(locateModel(ID, { ...hub.locate, offline: true }));
    expect(error.message).toContain('holds 2 models');
  });

  it('takes safetensors from a folder too', async () => {
    await cp(fixtureFolder('llama'), path.join(root, 'bf16'), { recursive: true });
    const hub = await startHub();
    expect(await kindOf(`hf:${ID}/bf16`, hub)).toBe('checkpoint');
    const located = await locateModel(`hf:${ID}/bf16`, hub.locate);
    expect(located.dir.endsWith('/bf16')).toBe(true);
  });

  it('says which folder is not there', async () => {
    const hub = await startHub();
    const error = await catchError(locateModel(`hf:${ID}/gpu`, hub.locate));
    expect(error).toMatchObject({ code: 'model_not_found', param: 'gpu' });
    expect(error.message).toContain(`${ID} has no folder gpu`);
    expect(error.suggestions[0]).toBe(`Folders of ${ID} with models: ${FOLDER}.`);
  });

  it('is the only one below the folder that was named', async () => {
    const [above = ''] = FOLDER.split('/');
    const hub = await startHub();
    expect(await kindOf(`hf:${ID}/${above}/`, hub)).toBe('genai');
    const located = await locateModel(`hf:${ID}/${above}`, { ...hub.locate, offline: true });
    expect(located).toMatchObject({ source: 'cache' });
    expect(located.dir.endsWith(`/${FOLDER}`)).toBe(true);
  });

  it('is refused when there are several below the folder that was named', async () => {
    await cp(model, path.join(root, 'cpu_and_mobile', 'fp32'), { recursive: true });
    const hub = await startHub();
    const error = await catchError(locateModel(`hf:${ID}/cpu_and_mobile`, hub.locate));
    expect(error.message).toContain(`holds 2 models of onnxruntime-genai, in ${FOLDER}, cpu_and_mobile/fp32`);
    expect(error.suggestions[0]).toBe(`Name the folder of one: hf:${ID}/${FOLDER}`);
    await locateModel(`hf:${ID}/${FOLDER}`, hub.locate);
    await locateModel(`hf:${ID}/cpu_and_mobile/fp32`, hub.locate);
    const offline = await catchError(
      locateModel(`hf:${ID}/cpu_and_mobile`, { ...hub.locate, offline: true }),
    );
    expect(offline.message).toContain(
      `holds 2 models of onnxruntime-genai, in ${FOLDER}, cpu_and_mobile/fp32`,
    );
  });

  it.each([
    [`hf:${ID}@v1/gpu`, `For the folder gpu write hf:${ID}/gpu@v1.`],
    [`hf:${ID}/cpu@v1/gpu`, `For the folder gpu write hf:${ID}/cpu/gpu@v1.`],
  ])('says how to name a folder where %s is no revision', async (reference, advice) => {
    const hub = await startHub();
    const error = await catchError(locateModel(reference, hub.locate));
    expect(error).toMatchObject({ code: 'model_not_found', param: 'v1/gpu' });
    expect(error.suggestions[0]).toBe(advice);
    const offline = await catchError(locateModel(reference, { ...hub.locate, offline: true }));
    expect(offline).toMatchObject({ code: 'offline' });
    expect(offline.suggestions[0]).toBe(advice);
  });

  it.each([`${ID}@main/gpu`, `hf:${ID}@main/gpu`, `hf:${ID}//`, 'hf:org'])(
    'asks the hub nothing about %s',
    async (reference) => {
      const hub = await startHub();
      const error = await catchError(locateModel(reference, hub.locate));
      expect(error).toMatchObject({ code: 'usage', exitCode: 2 });
      expect(error.suggestions).toContain(HUB_GRAMMAR);
      expect(hub.server.requests).toEqual([]);
    },
  );

  it.each([`${ID}/`, `hf:${ID}/`, `hf:${ID}/${FOLDER}/`, `hf:${ID}/@main`])(
    'is found by %s',
    async (reference) => {
      const located = await locateModel(reference, (await startHub()).locate);
      expect(located.dir.endsWith(`/${FOLDER}`)).toBe(true);
    },
  );

  it('says how to name a folder of the hub where a path is not there', async () => {
    const error = await catchError(locateModel(`${ID}/gpu`, { env: {} }));
    expect(error.suggestions.join('\n')).toContain(
      `For a folder of a repository of the hub write hf:${ID}/gpu.`,
    );
  });
});
