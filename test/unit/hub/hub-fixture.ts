import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { locateModel } from '../../../src/hub/locate.js';
import type { LocatedModel, LocateOptions } from '../../../src/hub/locate.js';
import { startHubServer } from '../../helpers/hub-server.js';
import type { Fault, HubServer } from '../../helpers/hub-server.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { writeSafetensors } from '../../helpers/write-safetensors.js';

export const ID = 'org/tiny';
const NO_RETRY = { attempts: 0, delayMs: 0 };

/** What a test of downloads works with: a repository, its server, and an empty cache. */
export interface HubFixture {
  readonly server: HubServer;
  readonly source: string;
  readonly cacheDir: string;
  readonly env: Record<string, string>;
  readonly locate: (options?: LocateOptions, reference?: string) => Promise<LocatedModel>;
  /** Names in blobs/ and snapshots/<commit>/ of the cache. */
  readonly listCache: () => Promise<{
    readonly blobs: readonly string[];
    readonly snapshot: readonly string[];
  }>;
}

export interface HubFixtureOptions {
  readonly token?: string;
  readonly faults?: readonly Fault[];
  /** Name → content; beside or instead of the usual ones. */
  readonly files?: Readonly<Record<string, string>>;
  /** Two shards and an index instead of one file. */
  readonly isSharded?: boolean;
}

/** Large enough that a connection can be cut in the middle. */
export const WEIGHT_BYTES = 400_000;

async function writeRepo(dir: string, { files = {}, isSharded = false }: HubFixtureOptions): Promise<void> {
  const data = Buffer.alloc(WEIGHT_BYTES, 'weights of a tiny model; ');
  const tensor = { dtype: 'U8', shape: [WEIGHT_BYTES], data };
  if (isSharded) {
    const weight_map = { a: 'model-1.safetensors', b: 'model-2.safetensors' };
    await writeSafetensors(join(dir, 'model-1.safetensors'), { a: tensor });
    await writeSafetensors(join(dir, 'model-2.safetensors'), {
      b: { ...tensor, data: data.map((byte) => byte ^ 1) },
    });
    await writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify({ weight_map }));
  } else {
    await writeSafetensors(join(dir, 'model.safetensors'), { w: tensor });
  }
  const usual = {
    'config.json': '{"model_type":"llama"}',
    'generation_config.json': '{}',
    'tokenizer.json': JSON.stringify({ padding: 'x'.repeat(20_000) }),
    'tokenizer_config.json': '{}',
    'chat_template.jinja': '{{ messages }}',
  };
  for (const [name, content] of Object.entries({ ...usual, ...files }))
    await writeFile(join(dir, name), content);
}

async function list(dir: string): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch {
    return [];
  }
}

export async function startFixture(options: HubFixtureOptions = {}): Promise<HubFixture> {
  const root = await createTempDir();
  const source = join(root, 'source');
  const cacheDir = join(root, 'hub');
  await mkdir(source);
  await writeRepo(source, options);
  const server = await startHubServer({ models: { [ID]: source }, ...options });
  onTestFinished(() => server.close());
  const env = { HF_ENDPOINT: `${server.url}/`, HF_HUB_CACHE: cacheDir, HF_HOME: join(root, 'home') };
  const repo = join(cacheDir, 'models--org--tiny');
  return {
    server,
    source,
    cacheDir,
    env,
    locate: (locateOptions = {}, reference = ID) =>
      locateModel(reference, { env, retry: NO_RETRY, ...locateOptions }),
    listCache: async () => ({
      blobs: await list(join(repo, 'blobs')),
      snapshot: await list(join(repo, 'snapshots', server.getCommit(ID))),
    }),
  };
}

/** Name → content of a snapshot's files. */
export async function readSnapshot(dir: string): Promise<Record<string, Buffer>> {
  const names = await list(dir);
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(dir, name))] as const)),
  );
}
