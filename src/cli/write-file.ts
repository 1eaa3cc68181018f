import { randomUUID } from 'node:crypto';
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { UserError } from '../errors.js';

/**
 * Makes sure, before anything is measured, that a file can be written later.
 * @param flag that names it, for messages
 * @throws UserError `usage`
 */
export function checkWritable(file: string, flag: string): void {
  try {
    const existing = statSync(file, { throwIfNoEntry: false });
    if (existing?.isDirectory() === true) throw new Error(`${file} is a folder`);
    const isReplaced = existing === undefined || existing.isFile();
    if (isReplaced) accessSync(path.dirname(resolveLink(file)), constants.W_OK | constants.X_OK);
    else accessSync(file, constants.W_OK);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('usage', `Expected ${flag} to name a file that can be written: ${reason}.`, {
      param: flag,
      suggestions: ['Choose a folder that exists and that this user may write to.'],
      cause,
    });
  }
}

/**
 * Makes sure, before anything is measured, that files can be written into a folder later; makes it where it is missing.
 * @param flag that names it, for messages
 * @throws UserError `usage`
 */
export function makeFolder(folder: string, flag: string): void {
  try {
    const missing: string[] = [];
    // One by one: Node's recursive mkdir never ends below a folder that takes none, like /proc.
    for (let at = path.resolve(folder); !existsSync(at); at = path.dirname(at)) missing.unshift(at);
    for (const each of missing) mkdirSync(each);
    accessSync(folder, constants.W_OK | constants.X_OK);
    if (!statSync(folder).isDirectory()) throw new Error(`${folder} is no folder`);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('usage', `Expected ${flag} to name a folder that can be written to: ${reason}.`, {
      param: flag,
      suggestions: ['Choose a folder that this user may write to.'],
      cause,
    });
  }
}

/**
 * Writes a file whole or not at all; devices and pipes are written to as they are.
 * @throws UserError `write_failed`
 */
export function writeFileWhole(file: string, text: string): void {
  try {
    const existing = statSync(file, { throwIfNoEntry: false });
    if (existing !== undefined && !existing.isFile()) writeFileSync(file, text);
    else replaceFile(resolveLink(file), text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError('write_failed', `Cannot write ${file}: ${reason}.`, {
      param: file,
      suggestions: ['Free some space, or choose another folder.'],
      cause,
    });
  }
}

function replaceFile(file: string, text: string): void {
  // Not named after the file, whose name may be as long as names may be.
  const staged = path.join(path.dirname(file), `.${randomUUID()}.partial`);
  try {
    writeFileSync(staged, text, { flag: 'wx' });
    renameSync(staged, file);
  } catch (error) {
    rmSync(staged, { force: true });
    throw error;
  }
}

/** A link keeps pointing where it points; one that points nowhere is replaced. */
function resolveLink(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}
