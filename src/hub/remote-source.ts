import { UserError } from '../errors.js';
import type { CheckpointLocation } from './checkpoint.js';
import { createHubClient, createStallGuard, DEFAULT_RETRY, readBody, retry } from './hub-client.js';
import type { HubClient, RetryPolicy } from './hub-client.js';
import type { HubSettings } from './hub-environment.js';
import { findLayout } from './layout.js';
import { listRepository } from './listing.js';
import type { Listing } from './listing.js';
import type { ModelSource, WeightReader } from './model-source.js';
import { quote } from './quote.js';
import { HUB_PREFIX } from './reference.js';
import type { RepoReference } from './reference.js';
import { createEtagHash, describeDamage, explainTransferFailure } from './transfer.js';
import type { RemoteFile } from './transfer.js';
import type { FileIdentity } from './weight-file.js';

/** A repository of the hub of which only what is asked for is fetched; nothing is kept on this machine. */
export interface RemoteModel {
  /** `dir` is `hf:org/name@commit` or `hf:org/name/sub/folder@commit`, which messages and reports show. */
  readonly location: CheckpointLocation;
  readonly source: ModelSource;
  /** Its weights are safetensors; anything else is read from a downloaded folder. */
  readonly isCheckpoint: boolean;
}

export interface RemoteOptions {
  readonly reference: string;
  readonly signal?: AbortSignal | undefined;
  readonly retry?: RetryPolicy | undefined;
}

/** Everything the requests for one repository share. */
interface Session {
  readonly client: HubClient;
  readonly listing: Listing;
  readonly retry: RetryPolicy;
  readonly signal: AbortSignal;
  readonly stallTimeoutMs: number;
  /** `hf:org/name@commit`, as `dir` */
  readonly label: string;
}

function describeMissing({ label }: Session, name: string): UserError {
  return new UserError(
    'invalid_checkpoint',
    `Expected the file ${quote(name)} in ${label} but it is missing.`,
    {
      param: name,
      suggestions: ['Tell the publisher of the model, or use another revision (org/name@revision).'],
    },
  );
}

function findFile(session: Session, name: string): RemoteFile {
  const file = session.listing.files.find((candidate) => candidate.name === name);
  if (file === undefined) throw describeMissing(session, name);
  return file;
}

function describeIgnoredRange({ client }: Session, { name }: RemoteFile, problem: string): UserError {
  return new UserError(
    'download_failed',
    `Cannot read the header of ${quote(name)} alone: asked for a part of the file, ${client.endpoint} ${problem}.`,
    {
      param: name,
      suggestions: [
        'Fetch the whole model first: fdq inspect with --measure does, and so does fdq serve.',
        'Set HF_ENDPOINT to use another mirror.',
      ],
    },
  );
}

/** Proves that an answer is the part asked for of a file of the size that was listed. */
function checkRange(session: Session, file: RemoteFile, response: Response, wanted: string): void {
  if (response.status === 200) throw describeIgnoredRange(session, file, 'sent the whole (no HTTP ranges)');
  const range = response.headers.get('content-range') ?? 'nothing';
  if (response.status !== 206 || range !== `bytes ${wanted}/${file.size}`) {
    throw describeIgnoredRange(
      session,
      file,
      `answered HTTP ${response.status} with ${quote(range)}, not "bytes ${wanted}/${file.size}"`,
    );
  }
}

async function fetchRange(
  session: Session,
  file: RemoteFile,
  buffer: Uint8Array,
  position: number,
): Promise<void> {
  const { client, signal } = session;
  const guard = createStallGuard(session.stallTimeoutMs);
  try {
    const wanted = `${position}-${position + buffer.length - 1}`;
    const response = await client.fetchBytes(
      file.url,
      { 'accept-encoding': 'identity', range: `bytes=${wanted}` },
      AbortSignal.any([signal, guard.signal]),
    );
    let filled = 0;
    try {
      checkRange(session, file, response, wanted);
      for await (const chunk of readBody(response)) {
        guard.touch();
        if (filled + chunk.length > buffer.length) throw new Error(`${file.name} is longer than announced`);
        buffer.set(chunk, filled);
        filled += chunk.length;
      }
    } finally {
      // After a refusal nothing of the body is read.
      if (!response.bodyUsed) await response.body?.cancel();
    }
    if (filled < buffer.length) throw new Error(`${file.name} ended early`);
  } catch (error) {
    throw explainTransferFailure(error, file, session);
  } finally {
    guard.stop();
  }
}

/** A whole file, its content hash proven. */
async function fetchSmall(session: Session, file: RemoteFile): Promise<Uint8Array> {
  return retry(session.retry, session.signal, async () => {
    const init = { headers: { 'accept-encoding': 'identity' } };
    const response = await session.client.fetchMetadata(file.url, init);
    const bytes = new Uint8Array(await response.arrayBuffer());
    if (createEtagHash(file).update(bytes).digest('hex') !== file.etag) throw describeDamage(file);
    return bytes;
  });
}

function openReader(session: Session, name: string): WeightReader {
  const file = findFile(session, name);
  const label = `${session.label}/${name}`;
  return {
    label,
    file: { path: label, size: file.size, mtimeMs: 0, ino: 0 },
    read: async (buffer, position) => {
      if (position + buffer.length > file.size) return false;
      if (buffer.length > 0) {
        await retry(session.retry, session.signal, () => fetchRange(session, file, buffer, position));
      }
      return true;
    },
    close: () => Promise.resolve(),
  };
}

function createSource(session: Session): ModelSource {
  return {
    names: session.listing.names,
    readSmall: async (name, maxBytes) => {
      const file = findFile(session, name);
      if (file.size <= maxBytes) return fetchSmall(session, file);
      throw new UserError(
        'invalid_checkpoint',
        `Expected at most ${maxBytes} bytes in ${quote(name)} but it has ${file.size}.`,
        { param: name, suggestions: ['Tell the publisher of the model, or use another revision.'] },
      );
    },
    openWeights: (name) => Promise.resolve().then(() => openReader(session, name)),
    reopen: ({ path }: FileIdentity) =>
      Promise.resolve().then(() => openReader(session, path.slice(session.label.length + 1))),
  };
}

/**
 * Opens a repository of the hub at one commit: small files are fetched whole, of weights the parts that are asked for
 * (HTTP ranges, each proven by its Content-Range against the listed size). Nothing is written to the disk.
 *
 * @throws UserError `model_not_found`, `download_failed`, `aborted`
 */
export async function openRemoteModel(
  repo: RepoReference,
  settings: HubSettings,
  options: RemoteOptions,
): Promise<RemoteModel> {
  const signal = options.signal ?? new AbortController().signal;
  const policy = options.retry ?? DEFAULT_RETRY;
  const client = createHubClient(repo, settings, await settings.readToken(), signal);
  const listing = await listRepository(client, policy, signal);
  const place = listing.folder === undefined ? repo.id : `${repo.id}/${listing.folder}`;
  const label = `${HUB_PREFIX}${place}@${listing.commit}`;
  const stallTimeoutMs = settings.downloadTimeoutMs;
  return {
    location: { reference: options.reference, dir: label, revision: listing.commit },
    isCheckpoint: findLayout(listing.names) === 'checkpoint',
    source: createSource({ client, listing, retry: policy, signal, stallTimeoutMs, label }),
  };
}
