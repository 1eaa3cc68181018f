import { listFiles, modelInfo } from '@huggingface/hub';
import { FdqError, UserError } from '../errors.js';
import { retry } from './hub-client.js';
import type { FirstContactPolicy, HubClient, RetryPolicy } from './hub-client.js';
import { hasNoModel } from './layout.js';
import { listNames, quote } from './quote.js';
import { describeSeveralFolders, isCommit, isRepoFolder } from './reference.js';
import type { RemoteFile } from './transfer.js';

/** What a repository holds at one commit. */
export interface Listing {
  readonly commit: string;
  /** Where in the repository the model lies; absent: at its top level. */
  readonly folder?: string;
  /** Everything in that folder. */
  readonly names: readonly string[];
  /** Those of them that are files. */
  readonly files: readonly RemoteFile[];
}

/** Looked through for folders with models. */
const MAX_ENTRIES = 10_000;
const ETAG = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;
/** Beside the weights, what serving reads; no code, no pickles. */
const SMALL_FILE =
  /^(?:config|generation_config|quantize_config|quant_config|hf_quant_config|fdq|genai_config|tokenizer[\w.-]*|chat_template[\w.-]*)\.json$|^chat_template[\w.-]*\.jinja$/;
const WEIGHT_FILE = /\.safetensors(?:\.index\.json)?$|\.onnx$|^weights\.bin$/;
const GENAI = /^genai_config\.json$/;
const MODEL_FILE = /^genai_config\.json$|^fdq\.json$|\.safetensors$/;
/** Nothing in subfolders. */
const PLAIN_NAME = /^(?!\.{1,2}$)[^/\\\p{Cc}]+$/u;

export function isSmallFile(name: string): boolean {
  return SMALL_FILE.test(name);
}

function describeOddAnswer({ endpoint, repo }: HubClient, problem: string): UserError {
  return new UserError(
    'download_failed',
    `${endpoint} gave an answer about ${repo.id} that makes no sense: ${problem}.`,
    {
      param: repo.id,
      suggestions: ['Check HF_ENDPOINT: it has to be a server that speaks the Hugging Face hub protocol.'],
    },
  );
}

/** Runs a request of the hub library: our fetch's errors pass, the library's own become one of ours. */
async function ask<T>(
  client: HubClient,
  policy: FirstContactPolicy,
  signal: AbortSignal,
  request: () => Promise<T>,
): Promise<T> {
  return retry(policy, signal, async () => {
    try {
      return await request();
    } catch (error) {
      if (error instanceof FdqError) throw error;
      // Without its cause, whose message quotes the answer: a proxy may echo the request's token.
      throw describeOddAnswer(client, 'it is not what the protocol says');
    }
  });
}

async function listRemoteFiles(
  client: HubClient,
  commit: string,
  folder: string | undefined,
): Promise<Listing> {
  const names: string[] = [];
  const files: RemoteFile[] = [];
  const { endpoint: hubUrl, repo } = client;
  const prefix = folder === undefined ? '' : `${folder}/`;
  for await (const entry of listFiles({
    repo: repo.id,
    revision: commit,
    hubUrl,
    fetch: client.fetchMetadata,
    ...(folder === undefined ? {} : { path: folder }),
  })) {
    if (!entry.path.startsWith(prefix)) {
      throw describeOddAnswer(client, `the listing of ${quote(prefix)} has ${quote(entry.path)}`);
    }
    const name = entry.path.slice(prefix.length);
    names.push(name);
    if (entry.type !== 'file' || !PLAIN_NAME.test(name)) continue;
    const etag = entry.lfs?.oid ?? entry.oid ?? '';
    if (!ETAG.test(etag) || !Number.isSafeInteger(entry.size) || entry.size < 0) {
      if (!SMALL_FILE.test(name) && !WEIGHT_FILE.test(name)) continue;
      throw describeOddAnswer(client, `the listing of ${quote(entry.path)} has no valid hash or size`);
    }
    const path = entry.path.split('/').map(encodeURIComponent).join('/');
    files.push({ name, size: entry.size, etag, url: `${hubUrl}/${repo.id}/resolve/${commit}/${path}` });
  }
  return { commit, names, files, ...(folder === undefined ? {} : { folder }) };
}

/** Folders that hold a file `pattern` matches, among the first entries of a repository, or of the named folder of it. */
async function findFolders(
  client: HubClient,
  commit: string,
  pattern: RegExp,
  folder?: string,
): Promise<readonly string[]> {
  const { endpoint: hubUrl, repo } = client;
  const folders = new Set<string>();
  let count = 0;
  for await (const { path } of listFiles({
    repo: repo.id,
    revision: commit,
    hubUrl,
    fetch: client.fetchMetadata,
    recursive: true,
    ...(folder === undefined ? {} : { path: folder }),
  })) {
    const slash = path.lastIndexOf('/');
    const place = path.slice(0, Math.max(0, slash));
    if (place !== '' && pattern.test(path.slice(slash + 1)) && isRepoFolder(place)) folders.add(place);
    if (++count === MAX_ENTRIES) break;
  }
  return [...folders];
}

/** The refusal of a folder that is not there, with the folders that hold models. */
async function nameFolders(client: HubClient, commit: string, error: unknown): Promise<unknown> {
  const { id, folder } = client.repo;
  if (!(error instanceof FdqError) || error.code !== 'model_not_found' || error.param !== folder)
    return error;
  const folders = await findFolders(client, commit, MODEL_FILE).catch(() => []);
  if (folders.length === 0) return error;
  return new UserError(error.code, error.message, {
    param: error.param ?? id,
    suggestions: [`Folders of ${id} with models: ${listNames(folders)}.`, ...error.suggestions],
    cause: error,
  });
}

async function resolveCommit(client: HubClient, policy: RetryPolicy, signal: AbortSignal): Promise<string> {
  const { endpoint: hubUrl, repo } = client;
  const { sha } = await ask(client, { ...policy, failsFast: true }, signal, () =>
    modelInfo({
      name: repo.id,
      revision: repo.revision,
      additionalFields: ['sha'],
      hubUrl,
      fetch: client.fetchMetadata,
    }),
  );
  if (typeof sha !== 'string' || !isCommit(sha)) throw describeOddAnswer(client, 'it names no commit');
  return sha;
}

/**
 * The commit a revision stands for, and the files of the folder that the reference names, or of the top level; where that
 * has no model and one folder below it has one of onnxruntime-genai, of that folder.
 * @throws UserError `model_not_found`, `download_failed`, `aborted`
 */
export async function listRepository(
  client: HubClient,
  policy: RetryPolicy,
  signal: AbortSignal,
): Promise<Listing> {
  const commit = await resolveCommit(client, policy, signal);
  const { folder } = client.repo;
  const listing = await ask(client, policy, signal, () => listRemoteFiles(client, commit, folder)).catch(
    async (error: unknown) => {
      throw await nameFolders(client, commit, error);
    },
  );
  if (!hasNoModel(listing.names)) return listing;
  const folders = await ask(client, policy, signal, () => findFolders(client, commit, GENAI, folder));
  if (folders.length > 1) throw describeSeveralFolders(client.repo, folders);
  const [only] = folders;
  if (only === undefined) return listing;
  return ask(client, policy, signal, () => listRemoteFiles(client, commit, only));
}
