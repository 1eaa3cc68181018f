import { stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { UnsupportedError, UserError } from '../errors.js';
import { findCachedFolders, findSnapshot } from './cache-layout.js';
import type { Snapshot } from './cache-layout.js';
import { downloadModel } from './download.js';
import type { DownloadProgress, RetryPolicy } from './download.js';
import { expandPath, readHubSettings } from './hub-environment.js';
import type { Environment, HubSettings } from './hub-environment.js';
import { listNames, quote, quotePath } from './quote.js';
import {
  adviseFolderFirst,
  describeSeveralFolders,
  findSimilarPaths,
  formatFetchCommand,
  HUB_PREFIX,
  isFolderReference,
  parseRepoReference,
} from './reference.js';
import type { RepoReference } from './reference.js';
import { listMissingFiles } from './missing-files.js';
import { GGUF_ADVICE } from './weight-files.js';

export interface LocateOptions {
  /** Branch, tag or commit; the default is `main`. Only for a repository of the hub. */
  readonly revision?: string | undefined;
  /** Never use the network; HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE do the same. */
  readonly offline?: boolean | undefined;
  /** The process's own by default. */
  readonly env?: Environment | undefined;
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly retry?: RetryPolicy | undefined;
  /** Only safetensors will do: a download refuses other layouts before it fetches their weights. */
  readonly isCheckpoint?: boolean | undefined;
  /** Throws for a config.json that cannot be served; a download asks it before fetching any weight. */
  readonly checkConfig?: ((config: Readonly<Record<string, unknown>>) => Promise<void>) | undefined;
}

export interface LocatedModel {
  /** Absolute. */
  readonly dir: string;
  /** As the user wrote it. */
  readonly reference: string;
  /** Commit hash of a model that comes from the hub. */
  readonly revision?: string;
  readonly source: 'folder' | 'cache' | 'download';
}

/** A repository that has to be asked of the hub. */
export interface MissingModel {
  readonly source: 'hub';
  readonly reference: string;
  readonly repo: RepoReference;
  readonly settings: HubSettings;
}

function describeOfflineMiss(reference: string, repo: RepoReference, problem: string): UserError {
  return new UserError('offline', `${quote(reference)} ${problem}, and fdq is offline.`, {
    param: reference,
    suggestions: [
      ...adviseFolder(repo),
      `Fetch it first: ${formatFetchCommand(repo)} (older name of the command: huggingface-cli download).`,
      'Or run the same fdq command without the offline switch (--offline, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE).',
    ],
  });
}

function adviseFolder(repo: RepoReference): readonly string[] {
  const advice = adviseFolderFirst(repo);
  return advice === undefined ? [] : [advice];
}

async function describeUnknownPath(reference: string, path: string): Promise<UserError> {
  const ofFile = describeFileFormat(reference);
  if (ofFile !== undefined) {
    return new UserError('model_not_found', `There is no file ${quotePath(reference)}.`, {
      param: reference,
      suggestions: [...ofFile],
    });
  }
  const similar = await findSimilarPaths(isAbsolute(reference) ? path : reference);
  const suggestions = similar.length > 0 ? [`Did you mean ${similar.map(quote).join(' or ')}?`] : [];
  const onHub = `${HUB_PREFIX}${reference}`;
  if (isFolderReference(reference))
    suggestions.push(`For a folder of a repository of the hub write ${onHub}.`);
  return new UserError('model_not_found', `There is no model folder ${quotePath(reference)}.`, {
    param: reference,
    suggestions: [
      ...suggestions,
      'Give a folder with config.json and safetensors files, or a hub id like org/name.',
    ],
  });
}

const GGUF = /\.gguf$/i;
const ONNX = /\.onnx$/i;
const CHECKPOINT_FILE = /(?:^|[/\\])config\.json$|\.safetensors$/;

/** What to give in place of a file, by its name. */
function describeFileFormat(file: string): readonly string[] | undefined {
  if (GGUF.test(file)) return GGUF_ADVICE;
  if (!ONNX.test(file)) return undefined;
  return [
    'Give the path of an .onnx file to fdq inspect, or to fdq convert with --format onnx.',
    'Everything else takes the folder of the model: that of an ONNX decoder has a genai_config.json.',
  ];
}

function describeFile(reference: string): UserError {
  if (GGUF.test(reference)) {
    return new UnsupportedError(
      'unsupported_model',
      `${quote(reference)} is a GGUF file, which fdq does not read.`,
      {
        param: reference,
        suggestions: [...GGUF_ADVICE],
      },
    );
  }
  const suggestions = describeFileFormat(reference) ?? [
    CHECKPOINT_FILE.test(reference)
      ? `Give its folder: ${quotePath(dirname(reference))}.`
      : 'Give the folder that holds config.json and the weights.',
  ];
  return new UserError('model_not_found', `Expected a model folder but ${quotePath(reference)} is a file.`, {
    param: reference,
    suggestions,
  });
}

async function locateFolder(reference: string, path: string): Promise<LocatedModel | undefined> {
  let stats;
  try {
    stats = await stat(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return undefined;
    throw new UserError(
      'model_not_found',
      `Cannot read the model folder ${quotePath(reference)}: ${code ?? 'unknown'}.`,
      {
        param: reference,
        suggestions: ['Give this user access to the folder and its parents.'],
        cause: error,
      },
    );
  }
  if (stats.isDirectory()) return { dir: path, reference, source: 'folder' };
  throw describeFile(reference);
}

/**
 * `models/demmo` looks like a hub id, but beside a folder `models` it is more likely a mistyped path: asking the hub
 * would tell it about local names, and a name squatted there would be served instead.
 */
async function describeMistypedPath(
  reference: string,
  options: LocateOptions,
): Promise<UserError | undefined> {
  if (reference.startsWith(HUB_PREFIX) || reference.includes('@') || options.revision !== undefined) {
    return undefined;
  }
  const parent = dirname(reference);
  const isFolder = await stat(parent).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (!isFolder) return undefined;
  const similar = await findSimilarPaths(reference);
  return new UserError('model_not_found', `There is no model folder ${quotePath(reference)}.`, {
    param: reference,
    suggestions: [
      ...(similar.length > 0 ? [`Did you mean ${similar.map(quote).join(' or ')}?`] : []),
      `It was not looked up on the hub because the folder ${quotePath(parent)} exists; to do so write ${HUB_PREFIX}${reference}.`,
    ],
  });
}

/** The snapshot, or the only folder of it that holds a model where its top level has none. */
async function findCached(
  repo: RepoReference,
  settings: HubSettings,
  isOffline: boolean,
): Promise<Snapshot | undefined> {
  const snapshot = await findSnapshot(settings.cacheDir, repo);
  if (snapshot === undefined) return snapshot;
  const folders = await findCachedFolders(snapshot.dir);
  if (folders.length > 1 && isOffline) {
    const { folder } = repo;
    throw describeSeveralFolders(
      repo,
      folder === undefined ? folders : folders.map((name) => `${folder}/${name}`),
    );
  }
  const [only, ...others] = folders;
  const isOne = only !== undefined && others.length === 0;
  return isOne ? { ...snapshot, dir: join(snapshot.dir, only) } : snapshot;
}

async function findRepo(
  reference: string,
  repo: RepoReference,
  options: LocateOptions,
): Promise<LocatedModel | MissingModel> {
  const settings = readHubSettings(options.env ?? process.env);
  const isOffline = options.offline === true || settings.isOffline;
  const snapshot = await findCached(repo, settings, isOffline);
  const missing = snapshot === undefined ? [] : await listMissingFiles(snapshot.dir);
  if (snapshot !== undefined && missing.length === 0) {
    return { dir: snapshot.dir, reference, revision: snapshot.commit, source: 'cache' };
  }
  const mistyped = await describeMistypedPath(reference, options);
  if (mistyped !== undefined) throw mistyped;
  if (isOffline) {
    const where = `in the Hugging Face cache (${settings.cacheDir})`;
    throw describeOfflineMiss(
      reference,
      repo,
      snapshot === undefined ? `is not ${where}` : `is incomplete ${where}: ${listNames(missing)} missing`,
    );
  }
  return { source: 'hub', reference, repo, settings };
}

/**
 * Finds a model without using the network: a local folder, else a repository (`org/name` or `org/name@revision`) in
 * the standard Hugging Face cache, if it is complete there, else what to ask the hub for. `hf:org/name` skips the local
 * folder, and may go on with a folder of the repository.
 *
 * @throws UserError `model_not_found`, `offline`, `usage`, `invalid_config`
 */
export async function findModel(
  reference: string,
  options: LocateOptions = {},
): Promise<LocatedModel | MissingModel> {
  if (reference === '' || reference.includes('\0')) {
    throw new UserError('usage', `Expected a model folder or a hub id but received ${quote(reference)}.`, {
      param: 'model',
      suggestions: ['Give a folder with config.json and safetensors files, or a hub id like org/name.'],
    });
  }
  const env = options.env ?? process.env;
  const path = reference.startsWith('~') ? expandPath(reference, env) : resolve(reference);
  const folder = reference.startsWith(HUB_PREFIX) ? undefined : await locateFolder(reference, path);
  if (folder !== undefined) {
    if (options.revision === undefined) return folder;
    throw new UserError('usage', `${quote(reference)} is a local folder, which has no revision.`, {
      param: 'revision',
      suggestions: ['Leave the revision out, or give a hub id like org/name.'],
    });
  }
  const repo = parseRepoReference(reference, options.revision);
  if (repo === undefined) throw await describeUnknownPath(reference, path);
  return findRepo(reference, repo, options);
}

/**
 * As `findModel`; what is not on this machine is downloaded into the cache.
 *
 * @throws UserError as `findModel`, and `download_failed`, `aborted`
 */
export async function locateModel(reference: string, options: LocateOptions = {}): Promise<LocatedModel> {
  const found = await findModel(reference, options);
  if (found.source !== 'hub') return found;
  const { dir, commit } = await downloadModel(found.repo, found.settings, options);
  return { dir, reference, revision: commit, source: 'download' };
}
