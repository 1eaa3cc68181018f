import { listFiles, modelInfo } from '@huggingface/hub';
import { FdqError, UserError } from '../errors.js';
import { retry } from './hub-client.js';
import type { FirstContactPolicy, HubClient, RetryPolicy } from './hub-client.js';
import { quote } from './quote.js';
import { isCommit } from './reference.js';
import type { RemoteFile } from './transfer.js';

/** What a repository holds at one commit. */
export interface Listing {
  readonly commit: string;
  /** Everything at the top level of the repository. */
  readonly names: readonly string[];
  /** Those of them that are files. */
  readonly files: readonly RemoteFile[];
}

const ETAG = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;
/** Beside the weights, what serving reads; no code, no pickles. */
const SMALL_FILE =
  /^(?:config|generation_config|quantize_config|quant_config|hf_quant_config|fdq|genai_config|tokenizer[\w.-]*|chat_template[\w.-]*)\.json$|^chat_template[\w.-]*\.jinja$/;
const WEIGHT_FILE = /\.safetensors(?:\.index\.json)?$|\.onnx$|^weights\.bin$/;
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

async function listRemoteFiles(client: HubClient, commit: string): Promise<Listing> {
  const names: string[] = [];
  const files: RemoteFile[] = [];
  const { endpoint: hubUrl, repo } = client;
  for await (const entry of listFiles({
    repo: repo.id,
    revision: commit,
    hubUrl,
    fetch: client.fetchMetadata,
  })) {
    names.push(entry.path);
    if (entry.type !== 'file' || !PLAIN_NAME.test(entry.path)) continue;
    const etag = entry.lfs?.oid ?? entry.oid ?? '';
    if (!ETAG.test(etag) || !Number.isSafeInteger(entry.size) || entry.size < 0) {
      if (!SMALL_FILE.test(entry.path) && !WEIGHT_FILE.test(entry.path)) continue;
      throw describeOddAnswer(client, `the listing of ${quote(entry.path)} has no valid hash or size`);
    }
    const url = `${hubUrl}/${repo.id}/resolve/${commit}/${encodeURIComponent(entry.path)}`;
    files.push({ name: entry.path, size: entry.size, etag, url });
  }
  return { commit, names, files };
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
 * The commit a revision stands for, and its files.
 * @throws UserError `model_not_found`, `download_failed`, `aborted`
 */
export async function listRepository(
  client: HubClient,
  policy: RetryPolicy,
  signal: AbortSignal,
): Promise<Listing> {
  const commit = await resolveCommit(client, policy, signal);
  return ask(client, policy, signal, () => listRemoteFiles(client, commit));
}
