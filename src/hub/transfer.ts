import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { FdqError, UserError } from '../errors.js';
import { claimPartialFile } from './blob-lock.js';
import {
  createStallGuard,
  describeAbort,
  describeNetworkFailure,
  readBody,
  retry,
  TransientHubError,
} from './hub-client.js';
import type { HubClient, RetryPolicy } from './hub-client.js';
import { quote } from './quote.js';

/** A file of a repository, as the hub lists it. */
export interface RemoteFile {
  readonly name: string;
  readonly size: number;
  /** Content hash, also the blob's name: SHA-256 of an LFS file, git's SHA-1 of any other. */
  readonly etag: string;
  readonly url: string;
}

export interface TransferOptions {
  readonly client: HubClient;
  readonly retry: RetryPolicy;
  readonly stallTimeoutMs: number;
  readonly signal: AbortSignal;
  /** Bytes that are now there; negative when bytes that were counted had to be dropped. */
  readonly onBytes: (count: number) => void;
}

const SHA256_HEX_LENGTH = 64;
const PARTIAL_FLAGS = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
const PARTIAL_MODE = 0o644;
const HASH_CHUNK_BYTES = 1 << 20;

/** What of the file is on disk and hashed. */
interface Partial {
  readonly handle: FileHandle;
  position: number;
  /** The furthest position of all tries: only what goes beyond it is progress. */
  furthest: number;
  hash: Hash;
}

/** Of a file's content; begins with what git puts before it. */
export function createEtagHash({ etag, size }: RemoteFile): Hash {
  if (etag.length === SHA256_HEX_LENGTH) return createHash('sha256');
  return createHash('sha1').update(`blob ${size}\0`);
}

async function restart(partial: Partial, file: RemoteFile, options: TransferOptions): Promise<void> {
  await partial.handle.truncate(0);
  options.onBytes(-partial.position);
  partial.position = 0;
  partial.hash = createEtagHash(file);
}

/** Hashes what an earlier call left. */
async function takeUp(partial: Partial, file: RemoteFile, options: TransferOptions): Promise<void> {
  const { size } = await partial.handle.stat();
  if (size > file.size) return restart(partial, file, options);
  const chunk = Buffer.allocUnsafe(Math.min(HASH_CHUNK_BYTES, size));
  while (partial.position < size) {
    if (options.signal.aborted) throw describeAbort();
    const { bytesRead } = await partial.handle.read(chunk, 0, chunk.length, partial.position);
    if (bytesRead === 0) break;
    partial.hash.update(chunk.subarray(0, bytesRead));
    partial.position += bytesRead;
    options.onBytes(bytesRead);
  }
}

/** True when the answer's body begins at `position`. */
function isContinuation(response: Response, position: number, size: number): boolean {
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  return response.status === 206 && Number(range?.[1]) === position && Number(range?.[2]) === size;
}

async function writeAll(handle: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  let written = 0;
  while (written < chunk.length) {
    written += (await handle.write(chunk, written, chunk.length - written, position + written)).bytesWritten;
  }
}

async function receive(
  partial: Partial,
  file: RemoteFile,
  options: TransferOptions,
  onArrival: () => void,
): Promise<void> {
  const { client } = options;
  const guard = createStallGuard(options.stallTimeoutMs);
  try {
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (partial.position > 0) headers['range'] = `bytes=${partial.position}-`;
    const response = await client.fetchBytes(
      file.url,
      headers,
      AbortSignal.any([options.signal, guard.signal]),
    );
    if (partial.position > 0 && !isContinuation(response, partial.position, file.size)) {
      await restart(partial, file, options);
      if (response.status !== 200) {
        await response.body?.cancel();
        throw describeNetworkFailure(client, new Error(`the range of ${file.name} was refused`));
      }
    }
    for await (const chunk of readBody(response)) {
      guard.touch();
      if (partial.position + chunk.length > file.size) {
        await restart(partial, file, options);
        throw describeNetworkFailure(client, new Error(`${file.name} is longer than announced`));
      }
      await writeAll(partial.handle, chunk, partial.position);
      partial.hash.update(chunk);
      partial.position += chunk.length;
      options.onBytes(chunk.length);
      if (partial.position > partial.furthest) {
        partial.furthest = partial.position;
        onArrival();
      }
    }
  } finally {
    guard.stop();
  }
}

/** Disk and connection failures as users see them. */
export function explainTransferFailure(
  error: unknown,
  file: RemoteFile,
  { client, signal }: Pick<TransferOptions, 'client' | 'signal'>,
): Error {
  if (error instanceof FdqError) return error;
  if (signal.aborted) return describeAbort(error);
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') return describeDiskFull(file.name, error);
  if (syscall === undefined || /^E(?:CONN|PIPE|TIME|HOST|NET|AI_)/.test(code ?? '')) {
    return describeNetworkFailure(client, error);
  }
  return new UserError(
    'download_failed',
    `Cannot write ${file.name} to the Hugging Face cache: ${code ?? syscall}.`,
    {
      param: file.name,
      suggestions: ['Give this user write access to the cache, or set HF_HUB_CACHE to another folder.'],
      cause: error,
    },
  );
}

export function describeDiskFull(what: string, cause?: unknown): UserError {
  return new UserError(
    'download_failed',
    `The disk of the Hugging Face cache is full: no room for ${what}.`,
    {
      suggestions: [
        'Free some space, or set HF_HUB_CACHE to a folder on a larger disk, and run the command again.',
      ],
      cause,
    },
  );
}

export function describeDamage({ name }: RemoteFile): TransientHubError {
  return new TransientHubError(
    'download_failed',
    `${quote(name)} arrived damaged: its content hash is wrong.`,
    {
      param: name,
      suggestions: ['Run the same command again.', 'Set HF_ENDPOINT to use another mirror if this repeats.'],
    },
  );
}

async function fill(partial: Partial, file: RemoteFile, options: TransferOptions): Promise<void> {
  await takeUp(partial, file, options);
  await retry(options.retry, options.signal, async (onArrival) => {
    try {
      if (partial.position < file.size) await receive(partial, file, options, onArrival);
      if (partial.position < file.size) throw new Error(`${file.name} ended early`);
      if (partial.hash.copy().digest('hex') === file.etag) return;
      await restart(partial, file, options);
    } catch (error) {
      throw explainTransferFailure(error, file, options);
    }
    throw describeDamage(file);
  });
}

/**
 * Brings one file to `blobPath`: takes up what an earlier call left in the partial file, asks the server for the rest
 * only, proves the content hash, and renames. Whatever happens, `blobPath` is absent or complete.
 */
export async function transferFile(
  file: RemoteFile,
  blobPath: string,
  options: TransferOptions,
): Promise<void> {
  const claim = await claimPartialFile(blobPath);
  let isWorthKeeping = false;
  try {
    const handle = await open(claim.path, PARTIAL_FLAGS, PARTIAL_MODE);
    const partial: Partial = { handle, position: 0, furthest: 0, hash: createEtagHash(file) };
    try {
      await fill(partial, file, options);
      await handle.datasync();
    } finally {
      isWorthKeeping = claim.isResumable && partial.position > 0;
      await handle.close();
    }
    await rename(claim.path, blobPath);
  } catch (error) {
    if (!isWorthKeeping) await rm(claim.path, { force: true });
    throw explainTransferFailure(error, file, options);
  } finally {
    await claim.release();
  }
}
