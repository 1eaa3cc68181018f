import { closeSync, constants, fstatSync, openSync, realpathSync } from 'node:fs';
import path from 'node:path';

import { invalidModel } from './onnx-problems.js';

interface ExternalTensor {
  readonly name: string;
  readonly byteLength: number;
  /** Folder of the model. */
  readonly dir: string;
}

interface LocatedData {
  /** Absolute, free of symbolic links. */
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
}

const KNOWN_KEYS = new Set(['location', 'offset', 'length', 'checksum']);
/** Marks ONNX Runtime takes as "the offset is a memory address": reading one would read our own memory. */
const IN_MEMORY_MARK = /ORT_MEM_ADDR/i;

/**
 * Finds the bytes an external tensor names. A model is foreign data: the file must be a regular file in the
 * model's folder, reached without `..`, absolute paths or links of either kind (but those of the Hugging Face cache
 * into its own blobs), and hold every byte.
 * @throws UserError `invalid_checkpoint`.
 */
export function locateExternalData(
  entries: readonly { readonly key?: string | null; readonly value?: string | null }[],
  tensor: ExternalTensor,
): LocatedData {
  const fields = new Map<string, string>();
  for (const { key, value } of entries) {
    if (!KNOWN_KEYS.has(key ?? '') || fields.has(key ?? ''))
      refuse(tensor, `has an unknown or repeated entry "${key ?? ''}"`);
    fields.set(key ?? '', value ?? '');
  }
  const offset = readCount(fields.get('offset') ?? '0', tensor, 'offset');
  const length = readCount(fields.get('length') ?? String(tensor.byteLength), tensor, 'length');
  if (length !== tensor.byteLength)
    refuse(tensor, `says length ${length} but its shape needs ${tensor.byteLength} bytes`);
  const file = resolveLocation(fields.get('location') ?? '', tensor);
  const size = measureFile(file, tensor);
  if (offset + length > size) {
    refuse(tensor, `lies at bytes ${offset} to ${offset + length} of "${file}", which has ${size}`);
  }
  return { file, offset, byteLength: length };
}

function readCount(text: string, tensor: ExternalTensor, key: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) refuse(tensor, `has the ${key} "${text}", which is not a byte count`);
  return value;
}

function resolveLocation(location: string, tensor: ExternalTensor): string {
  if (IN_MEMORY_MARK.test(location)) refuse(tensor, 'points into memory instead of a file');
  const parts = location.split(/[\\/]/);
  if (location === '' || location.includes('\0') || path.isAbsolute(location) || /^[a-z]:/i.test(location)) {
    refuse(tensor, `has the location "${location}", which is not a relative path`);
  }
  if (parts.includes('..') || location.includes('\\'))
    refuse(tensor, `has the location "${location}", which may leave the folder`);
  try {
    const dir = realpathSync(tensor.dir);
    const file = path.join(dir, location);
    const target = realpathSync(file);
    if (target !== file && path.dirname(target) !== findBlobs(dir)) {
      refuse(tensor, `has the location "${location}", which is reached through a symbolic link`);
    }
    return target;
  } catch (error) {
    if (isFsError(error)) throw missing(tensor, location, error);
    throw error;
  }
}

/** `<repository>/snapshots/<commit>` of the Hugging Face cache, or a folder of that. */
const SNAPSHOT = /^(.*)\/snapshots\/(?:[^/]+|[0-9a-f]{40}\/.+)$/s;

/** In the Hugging Face cache every file is a link into the `blobs` of its repository, whose files have no other names. */
function findBlobs(dir: string): string | undefined {
  const [, cached] = SNAPSHOT.exec(dir) ?? [];
  if (cached === undefined) return undefined;
  try {
    return realpathSync(path.join(cached, 'blobs'));
  } catch {
    return undefined;
  }
}

function measureFile(file: string, tensor: ExternalTensor): number {
  let descriptor: number;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw missing(tensor, file, error);
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) refuse(tensor, `has its data in "${file}", which is not a regular file`);
    if (stat.nlink > 1) refuse(tensor, `has its data in "${file}", which is a hard link to another file`);
    return stat.size;
  } finally {
    closeSync(descriptor);
  }
}

function isFsError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error;
}

function missing(tensor: ExternalTensor, location: string, cause: unknown): Error {
  return invalidModel(`Tensor "${tensor.name}" has its data in "${location}", which cannot be opened`, cause);
}

function refuse(tensor: ExternalTensor, reason: string): never {
  throw invalidModel(`Tensor "${tensor.name}" ${reason}`);
}
