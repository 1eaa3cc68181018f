import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { UserError } from '../../errors.js';

/** Larger texts are mistakes: one run would take days. */
const MAX_FILE_BYTES = 256 * 1024 ** 2;

export interface TextFile {
  readonly path: string;
  readonly text: string;
  /** Of the bytes. */
  readonly sha256: string;
}

/**
 * Reads a UTF-8 file as it is, byte order mark included.
 * @param flag how messages name it, e.g. `--text`
 * @throws UserError `usage` for a file that cannot be read, is too large, is empty or is not UTF-8
 */
export async function readTextFile(path: string, flag: string): Promise<TextFile> {
  const bytes = await readBytes(path, flag);
  const text = bytes.toString('utf8');
  const again = Buffer.from(text, 'utf8');
  if (!again.equals(bytes)) {
    const offset = bytes.findIndex((byte, i) => byte !== again[i]);
    throw refuse(path, flag, `is not UTF-8: byte ${offset} begins no character`);
  }
  if (text.trim() === '') throw refuse(path, flag, 'is empty');
  return { path, text, sha256: createHash('sha256').update(bytes).digest('hex') };
}

async function readBytes(path: string, flag: string): Promise<Buffer> {
  let size: number;
  try {
    size = (await stat(path)).size;
    if (size <= MAX_FILE_BYTES) return await readFile(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('usage', `Expected ${flag} to be a text file but could not read it: ${reason}.`, {
      param: flag,
      suggestions: ['Give the path of a UTF-8 file.'],
      cause,
    });
  }
  throw refuse(path, flag, `has ${size} bytes, more than the ${MAX_FILE_BYTES} that are read`);
}

function refuse(path: string, flag: string, what: string): UserError {
  return new UserError(
    'usage',
    `Expected ${flag} to be a UTF-8 text file but ${JSON.stringify(path)} ${what}.`,
    {
      param: flag,
      suggestions: ['Give the path of a UTF-8 file.'],
    },
  );
}
