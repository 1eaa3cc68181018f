import path from 'node:path';
import { FdqError, UserError } from '../../errors.js';

const REASONS: Readonly<Record<string, readonly [why: string, todo: string]>> = {
  ENOSPC: ['there is no space left on the disk', 'Free some space, or write to another disk.'],
  EDQUOT: ['the disk quota is used up', 'Free some space, or write to another disk.'],
  EFBIG: ['it is larger than files may be there', 'Raise the limit (ulimit -f), or write to another disk.'],
  EACCES: ['this user may not write there', 'Choose a folder this user may write to, or change its mode.'],
  EPERM: ['this user may not write there', 'Choose a folder this user may write to, or change its mode.'],
  EROFS: ['the file system is read-only', 'Write to another disk.'],
  ENOENT: ['its parent folder does not exist', 'Create the parent folder first.'],
  ENOTDIR: ['a part of the path is not a folder', 'Correct the path.'],
  ENAMETOOLONG: ['the name is too long', 'Choose a shorter name.'],
};

/** What a failed write means to the user; errors of fdq pass through. */
export function writeFailure(file: string, cause: unknown): Error {
  if (cause instanceof FdqError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  const [why, todo] = REASONS[code ?? ''] ?? [message, 'Check the disk.'];
  return new UserError('write_failed', `Could not write ${JSON.stringify(path.resolve(file))}: ${why}.`, {
    param: file,
    suggestions: [todo],
    cause,
  });
}
