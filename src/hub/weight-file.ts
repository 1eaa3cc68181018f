import { constants } from 'node:fs';
import { open, realpath } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import { quote, quotePath } from './quote.js';

/** What tells a file from another one put in its place, or from itself after a change. */
export interface FileIdentity {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
  readonly ino: number;
}

/** O_NONBLOCK: opening a named pipe must not wait for a writer. */
const READ_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

function describeOpenFailure(path: string, error: NodeJS.ErrnoException): UserError {
  const name = quotePath(path);
  if (error.code === 'ENOENT') {
    return new UserError('invalid_checkpoint', `Expected the file ${name} but it does not exist.`, {
      param: path,
      suggestions: ['Fetch the model again; files that are already complete are kept.'],
      cause: error,
    });
  }
  return new UserError('invalid_checkpoint', `Cannot open ${name}: ${error.code ?? error.message}.`, {
    param: path,
    suggestions:
      error.code === 'EACCES'
        ? ['Give this user read access to the model folder.']
        : ['Check the file and the disk it is on.'],
    cause: error,
  });
}

/** The path with every symbolic link resolved. */
export async function resolveFile(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    throw describeOpenFailure(path, error as NodeJS.ErrnoException);
  }
}

/** The file's identity as the open descriptor sees it. */
export async function identify(handle: FileHandle, path: string): Promise<FileIdentity> {
  const { size, mtimeMs, ino } = await handle.stat();
  return { path, size, mtimeMs, ino };
}

function assertSame(found: FileIdentity, expected: FileIdentity): void {
  let change: string | undefined;
  if (found.ino !== expected.ino) change = 'was replaced by another file';
  else if (found.size < expected.size)
    change = `was truncated from ${expected.size} to ${counted(found.size, 'byte')}`;
  else if (found.size > expected.size) change = `grew from ${expected.size} to ${found.size} bytes`;
  else if (found.mtimeMs !== expected.mtimeMs) change = 'was written to';
  if (change === undefined) return;
  throw new UserError(
    'invalid_checkpoint',
    `${quote(basename(expected.path))} ${change} after fdq checked it.`,
    {
      param: expected.path,
      suggestions: ['Wait until nothing writes to the model folder any more, then start again.'],
    },
  );
}

/**
 * Opens a regular file read-only. The path's links are resolved first and the last component is then opened with
 * O_NOFOLLOW, so the descriptor is that of the file that was resolved. With `expected`, the descriptor's identity is
 * compared: reads through it come from the file whose header was checked.
 *
 * The caller closes the handle.
 *
 * @throws UserError `invalid_checkpoint`
 */
export async function openWeightFile(path: string, expected?: FileIdentity): Promise<FileHandle> {
  const resolved = await resolveFile(path);
  let handle: FileHandle;
  try {
    handle = await open(resolved, READ_FLAGS);
  } catch (error) {
    throw describeOpenFailure(path, error as NodeJS.ErrnoException);
  }
  try {
    const stats = await handle.stat();
    if (!stats.isFile()) {
      throw new UserError('invalid_checkpoint', `Expected a regular file at ${quotePath(path)}.`, {
        param: path,
        suggestions: ['Point --model at a folder with the checkpoint files themselves.'],
      });
    }
    if (expected !== undefined) assertSame(await identify(handle, path), expected);
  } catch (error) {
    await handle.close();
    throw error;
  }
  return handle;
}

/** Fills `buffer` from `position`; false when the file ends before that. */
export async function readExactly(
  handle: FileHandle,
  buffer: Uint8Array,
  position: number,
): Promise<boolean> {
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(buffer, filled, buffer.length - filled, position + filled);
    if (bytesRead === 0) return false;
    filled += bytesRead;
  }
  return true;
}

/**
 * A whole small file.
 *
 * @throws UserError `invalid_checkpoint` when it is larger than `maxBytes`.
 */
export async function readSmallFile(path: string, maxBytes: number): Promise<Uint8Array> {
  const handle = await openWeightFile(path);
  try {
    const { size } = await handle.stat();
    if (size > maxBytes) {
      throw new UserError(
        'invalid_checkpoint',
        `Expected at most ${maxBytes} bytes in ${quote(basename(path))} but it has ${size}.`,
        { param: path, suggestions: ['Fetch this file again from where the model was published.'] },
      );
    }
    const bytes = Buffer.alloc(size);
    if (!(await readExactly(handle, bytes, 0))) {
      throw new UserError('invalid_checkpoint', `${quote(basename(path))} was truncated while fdq read it.`, {
        param: path,
        suggestions: ['Wait until nothing writes to the model folder any more, then start again.'],
      });
    }
    return bytes;
  } finally {
    await handle.close();
  }
}
