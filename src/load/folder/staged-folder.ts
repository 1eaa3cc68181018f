import { createHash, randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { writeFailure } from './write-problems.js';

/** A leftover of another machine cannot be asked whether its writer lives; after this long nobody does. */
const ABANDONED_AFTER_MS = 24 * 3600 * 1000;
const OLD = '-old';
/** Who may read what is written, less what the umask takes. */
export interface Modes {
  readonly folder: number;
  readonly file: number;
}

/** What only its writer needs. */
export const PRIVATE_MODES: Modes = { folder: 0o700, file: 0o600 };
/** What is meant for others, as programs write files. */
export const SHARED_MODES: Modes = { folder: 0o777, file: 0o666 };

/** The target's name, and who stages it. */
const STAGED_NAME = /^\.(.+)\.partial-([0-9a-f]{8}-\d+-[0-9a-f]{8}(?:-old)?)$/;
const HOST = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);

/**
 * A folder that is written under a temporary name beside its target and appears there whole or not at all.
 * What a killed process left behind goes away when the same target is staged again.
 */
export class StagedFolder {
  /** Files go here. */
  readonly dir: string;
  readonly #target: string;

  private constructor(dir: string, target: string) {
    this.dir = dir;
    this.#target = target;
  }

  /**
   * @param target absolute; its parent must exist
   * @throws UserError `write_failed`
   */
  static async create(target: string, modes: Modes): Promise<StagedFolder> {
    const parent = path.dirname(target);
    const base = path.basename(target);
    const dir = path.join(
      parent,
      `.${base}.partial-${HOST}-${process.pid}-${randomBytes(4).toString('hex')}`,
    );
    try {
      await removeAbandoned(parent, base);
      await mkdir(dir, { mode: modes.folder });
    } catch (error) {
      throw writeFailure(target, error);
    }
    return new StagedFolder(dir, target);
  }

  /**
   * Flushes every file to the disk and moves the folder to its target.
   * @returns false when `replace` is false and something is there already; the staged folder is then gone
   * @throws UserError `write_failed`; what was at the target is then still there
   */
  async publish({ replace }: { readonly replace: boolean }): Promise<boolean> {
    const parent = path.dirname(this.#target);
    try {
      for (const name of await readdir(this.dir, { recursive: true })) await flush(path.join(this.dir, name));
      await flush(this.dir);
      const isPublished = replace ? await this.#replace() : await this.#rename();
      await flush(parent);
      return isPublished;
    } catch (error) {
      await this.discard();
      throw writeFailure(this.#target, error);
    }
  }

  /** Removes the staged folder; nothing happens when it was published. */
  async discard(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }

  async #rename(): Promise<boolean> {
    try {
      await rename(this.dir, this.#target);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
      await this.discard();
      return false;
    }
  }

  async #replace(): Promise<boolean> {
    const old = `${this.dir}${OLD}`;
    const hadOld = await moveIfThere(this.#target, old);
    try {
      await rename(this.dir, this.#target);
    } catch (error) {
      if (hadOld) await rename(old, this.#target);
      throw error;
    }
    await rm(old, { recursive: true, force: true });
    return true;
  }
}

async function moveIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function flush(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Removes what processes that are no longer alive left unfinished in a folder.
 * @param target name of the only target whose leftovers are meant; absent: those of all
 */
export async function removeAbandoned(parent: string, target?: string): Promise<void> {
  const all = await readdir(parent);
  for (const name of all) {
    const [, base = '', suffix = ''] = STAGED_NAME.exec(name) ?? [];
    if (suffix === '' || (target !== undefined && base !== target)) continue;
    // Killed between two renames: what was at the target is only there.
    if (suffix.endsWith(OLD) && !all.includes(base)) continue;
    const file = path.join(parent, name);
    if (await isAbandoned(file, suffix)) await rm(file, { recursive: true, force: true });
  }
}

async function isAbandoned(file: string, suffix: string): Promise<boolean> {
  const [host, pidText] = suffix.split('-');
  const pid = Number(pidText);
  if (host === HOST && Number.isSafeInteger(pid) && pid > 0) return !isAlive(pid);
  const age = await stat(file).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => 0,
  );
  return age > ABANDONED_AFTER_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
