import { randomBytes } from 'node:crypto';
import { mkdir, rename, rm, stat, statfs, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve } from 'node:path';
import { UserError } from '../errors.js';
import { getRepoCache } from './cache-layout.js';
import type { RepoCache, Snapshot } from './cache-layout.js';
import { readConfig, readQuantizationConfig } from './checkpoint.js';
import { createHubClient, DEFAULT_RETRY } from './hub-client.js';
import type { HubClient, RetryPolicy } from './hub-client.js';
import type { HubSettings } from './hub-environment.js';
import {
  decoderFileOf,
  findLayout,
  GENAI_FILE,
  GRAPH_FILE,
  listGenaiFiles,
  MANIFEST_FILE,
  readGenaiJson,
  WEIGHTS_FILE,
} from './layout.js';
import { isSmallFile, listRepository } from './listing.js';
import type { Listing } from './listing.js';
import { makeFolders } from './make-folders.js';
import { createFolderSource } from './model-source.js';
import { quote, quotePath } from './quote.js';
import type { RepoReference } from './reference.js';
import { describeDiskFull, transferFile } from './transfer.js';
import type { RemoteFile, TransferOptions } from './transfer.js';
import { findWeightFiles, INDEX_FILE, SINGLE_FILE } from './weight-files.js';

export type { RetryPolicy } from './hub-client.js';

export interface DownloadProgress {
  /** The file that has just moved on. */
  readonly file: string;
  /** Over all files of the download, including what was there before. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
  readonly filesDone: number;
  readonly filesTotal: number;
}

export interface DownloadOptions {
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly retry?: RetryPolicy | undefined;
  /** Only safetensors will do: other layouts are refused before their weights are fetched. */
  readonly isCheckpoint?: boolean | undefined;
  /** Throws for a config.json that cannot be served, before any weight is fetched. */
  readonly checkConfig?: ((config: Readonly<Record<string, unknown>>) => Promise<void>) | undefined;
}

/** Everything one download shares. */
interface Download {
  readonly client: HubClient;
  readonly cache: RepoCache;
  readonly snapshot: Snapshot;
  readonly settings: HubSettings;
  readonly retry: RetryPolicy;
  readonly signal: AbortSignal;
}

const PARALLEL_FILES = 4;

async function readSize(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch {
    return undefined;
  }
}

/** A relative link, as huggingface_hub writes it, put in place in one step. */
async function linkIntoSnapshot({ snapshot, cache }: Download, { name, etag }: RemoteFile): Promise<void> {
  const temporary = join(snapshot.dir, `${randomBytes(6).toString('hex')}.incomplete`);
  await symlink(join(relative(snapshot.dir, cache.blobs), etag), temporary);
  await rename(temporary, join(snapshot.dir, name));
}

async function fetchFile(
  download: Download,
  file: RemoteFile,
  signal: AbortSignal,
  onBytes: (count: number) => void,
): Promise<void> {
  const { client, cache, snapshot, settings } = download;
  const blob = join(cache.blobs, file.etag);
  if ((await readSize(blob)) === file.size) {
    onBytes(file.size);
  } else {
    const options: TransferOptions = {
      client,
      retry: download.retry,
      stallTimeoutMs: settings.downloadTimeoutMs,
      signal,
      onBytes,
    };
    await transferFile(file, blob, options);
  }
  if ((await readSize(join(snapshot.dir, file.name))) !== file.size) await linkIntoSnapshot(download, file);
}

/** A few at a time; the first failure stops the others, and nothing runs any more when this returns. */
async function fetchAll(
  download: Download,
  files: readonly RemoteFile[],
  onBytes: (file: RemoteFile, count: number, isDone: boolean) => void,
): Promise<void> {
  const stop = new AbortController();
  const signal = AbortSignal.any([download.signal, stop.signal]);
  const queue = [...files];
  const failures: Error[] = [];
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined && !stop.signal.aborted; file = queue.shift()) {
      const current = file;
      try {
        await fetchFile(download, current, signal, (count) => onBytes(current, count, false));
        onBytes(current, 0, true);
      } catch (error) {
        failures.push(error as Error);
        stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_FILES }, work));
  if (failures[0] !== undefined) throw failures[0];
}

/** Bytes still to come, against what the disk has free. */
async function checkFreeSpace({ cache }: Download, files: readonly RemoteFile[]): Promise<void> {
  let needed = 0;
  for (const { etag, size } of files) {
    const blob = join(cache.blobs, etag);
    if ((await readSize(blob)) !== size) {
      needed += Math.max(0, size - ((await readSize(`${blob}.incomplete`)) ?? 0));
    }
  }
  const { bavail, bsize } = await statfs(cache.blobs);
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  if (needed > bavail * bsize) {
    throw describeDiskFull(
      `${gib(needed)} (${gib(bavail * bsize)} free in ${quotePath(dirname(cache.blobs))})`,
    );
  }
}

function createProgress(
  done: readonly RemoteFile[],
  ahead: readonly RemoteFile[],
  onProgress: (progress: DownloadProgress) => void,
): (file: RemoteFile, count: number, isDone: boolean) => void {
  const sum = (files: readonly RemoteFile[]): number => files.reduce((total, { size }) => total + size, 0);
  const filesTotal = done.length + ahead.length;
  const bytesTotal = sum(done) + sum(ahead);
  let bytesDone = sum(done);
  let filesDone = done.length;
  return ({ name }, count, isDone) => {
    bytesDone += count;
    if (isDone) filesDone++;
    onProgress({ file: name, bytesDone, bytesTotal, filesDone, filesTotal });
  };
}

/** The weight files to fetch: those the index names, not a second copy in another layout. */
async function selectWeights(download: Download, listing: Listing): Promise<readonly RemoteFile[]> {
  const { repo } = download.client;
  const found = await findWeightFiles(createFolderSource(download.snapshot.dir, listing.names), repo.id);
  const wanted = found.kind === 'single' ? [SINGLE_FILE] : found.index.shards;
  return wanted.map((name) => findListed(repo, listing, { name, names: 'index' }));
}

/** The graph of a model of onnxruntime-genai, which is fetched first, and what it names. */
async function selectGenai(download: Download, listing: Listing): Promise<readonly RemoteFile[]> {
  const { repo } = download.client;
  const source = createFolderSource(download.snapshot.dir, listing.names);
  const decoder = decoderFileOf(await readGenaiJson(source));
  const graph = findListed(repo, listing, { name: decoder, names: GENAI_FILE });
  await checkFreeSpace(download, [graph]);
  await fetchAll(download, [graph], () => undefined);
  const names = await listGenaiFiles(decoder, source);
  return names.map((name) => findListed(repo, listing, { name, names: decoder }));
}

function findListed(
  repo: RepoReference,
  { files }: Listing,
  { name, names }: { readonly name: string; readonly names: string },
): RemoteFile {
  const file = files.find((candidate) => candidate.name === name);
  if (file !== undefined) return file;
  throw new UserError(
    'invalid_checkpoint',
    `${repo.id} lacks the weight file ${quote(name)} that its ${names} names.`,
    {
      param: name,
      suggestions: ['Tell the publisher of the model, or use another revision (org/name@revision).'],
    },
  );
}

/** What to fetch beside the small files, once these show a model that may be loaded. */
async function selectFiles(
  download: Download,
  listing: Listing,
  options: DownloadOptions,
): Promise<readonly RemoteFile[]> {
  const { repo } = download.client;
  const layout = options.isCheckpoint === true ? 'checkpoint' : findLayout(listing.names);
  if (layout === 'fdq') {
    return [GRAPH_FILE, WEIGHTS_FILE].map((name) =>
      findListed(repo, listing, { name, names: MANIFEST_FILE }),
    );
  }
  if (layout === 'genai') return selectGenai(download, listing);
  const weights = await selectWeights(download, listing);
  const source = createFolderSource(download.snapshot.dir, listing.names);
  const config = await readConfig(source, repo.id);
  await readQuantizationConfig(source, config, repo.id);
  await options.checkConfig?.(config);
  return weights;
}

async function writeRef({ refs }: RepoCache, revision: string, commit: string): Promise<void> {
  if (revision === commit) return;
  const path = join(refs, revision);
  const temporary = `${path}.${randomBytes(6).toString('hex')}.incomplete`;
  await mkdir(dirname(path), { recursive: true });
  try {
    await writeFile(temporary, commit);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function prepareFolders({ cache, snapshot }: Download): Promise<void> {
  try {
    await makeFolders(resolve(cache.blobs));
    await makeFolders(resolve(snapshot.dir));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const folder = quotePath(dirname(cache.blobs));
    throw new UserError(
      'download_failed',
      `Cannot write to the Hugging Face cache at ${folder}: ${code ?? 'unknown'}.`,
      {
        param: dirname(cache.blobs),
        suggestions: ['Give this user write access to it, or set HF_HUB_CACHE to a folder of your own.'],
        cause: error,
      },
    );
  }
}

/**
 * Downloads what serving needs of a repository into the standard Hugging Face cache: configuration and tokenizer first,
 * then, once these show a model that fdq can load, the weights. Files that are there already are kept, partial ones
 * are continued. `refs/<revision>` is written last, so an interrupted download never looks like a finished one.
 *
 * @throws UserError `model_not_found`, `download_failed`, `unsupported_model`, `invalid_checkpoint`, `aborted`
 */
export async function downloadModel(
  repo: RepoReference,
  settings: HubSettings,
  options: DownloadOptions = {},
): Promise<Snapshot> {
  const signal = options.signal ?? new AbortController().signal;
  const policy = options.retry ?? DEFAULT_RETRY;
  const client = createHubClient(repo, settings, await settings.readToken(), signal);
  const listing = await listRepository(client, policy, signal);
  const { commit, folder = '' } = listing;

  const cache = getRepoCache(settings.cacheDir, repo.id);
  const snapshot: Snapshot = { dir: join(cache.snapshots, commit, folder), commit };
  const download: Download = { client, cache, snapshot, settings, retry: policy, signal };
  await prepareFolders(download);

  const small = listing.files.filter(({ name }) => isSmallFile(name) || name === INDEX_FILE);
  await fetchAll(download, small, () => undefined);
  const weights = await selectFiles(download, listing, options);
  await checkFreeSpace(download, weights);
  await fetchAll(download, weights, createProgress(small, weights, options.onProgress ?? (() => undefined)));
  await writeRef(cache, repo.revision, commit);
  return snapshot;
}
