import type { Stats } from 'node:fs';
import { chmod, lstat, mkdtemp, readdir, rm, rmdir, statfs, utimes } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { UserError } from '../../errors.js';
import { readSmallFile, type FileIdentity } from '../../hub/weight-file.js';
import { MAX_MANIFEST_BYTES, parseCacheManifest, type CacheManifest } from '../folder/manifest.js';
import { removeAbandoned } from '../folder/staged-folder.js';
import { identifyWeights } from '../folder/open-folder.js';
import { findDamagedTensor } from '../folder/verify-tensors.js';
import { MANIFEST_FILE, WEIGHTS_FILE } from '../../hub/layout.js';
import { findMissingFolders, makeFolders } from '../../hub/make-folders.js';
import { writeFailure } from '../folder/write-problems.js';

/** Folder of quantized weights inside the cache folder of fdq. */
const WEIGHTS_FOLDER = 'quantized';
const KEY = /^[0-9a-f]{64}$/;
const WRITABLE_BY_OTHERS = 0o022;

/** One entry as it lies on the disk. */
export interface CacheEntry {
  readonly key: string;
  /** Absolute. */
  readonly dir: string;
  readonly bytes: number;
  /** When it was written or last used. */
  readonly usedAt: Date;
  /** Absent when fdq.json cannot be read; `problem` then says why. */
  readonly manifest?: CacheManifest;
  readonly problem?: string;
}

/** An entry whose structure is proven; its bytes are not yet compared with their digests. */
export interface OpenedEntry {
  readonly manifest: CacheManifest;
  readonly weights: FileIdentity;
}

/**
 * Folder of cache entries, one a key. Entries are trusted with the weights of a model, so the folder must belong to this
 * user and nobody else may write to it.
 */
export class CacheFolder {
  /** Absolute. */
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  /**
   * The folder where it exists.
   * @param cacheDir cache folder of fdq
   * @throws UserError `usage` for a folder that others could write to or that is a link
   */
  static async find(cacheDir: string): Promise<CacheFolder | undefined> {
    const root = path.resolve(cacheDir);
    const dir = path.join(root, WEIGHTS_FOLDER);
    if ((await statOf(root)) === undefined) return undefined;
    await requirePrivate(root);
    if ((await statOf(dir)) === undefined) return undefined;
    await requirePrivate(dir);
    return new CacheFolder(dir);
  }

  /**
   * The folder, created with its parents where it does not exist.
   * @throws UserError `write_failed`, and as `find`
   */
  static async create(cacheDir: string): Promise<CacheFolder> {
    const root = path.resolve(cacheDir);
    const dir = path.join(root, WEIGHTS_FOLDER);
    try {
      await makeFolders(root, 0o700);
      await requirePrivate(root);
      await makeFolders(dir, 0o700);
      await requirePrivate(dir);
      await chmod(dir, 0o700);
    } catch (error) {
      throw writeFailure(dir, error);
    }
    return new CacheFolder(dir);
  }

  /**
   * Proves that the folder can be made and written to, and leaves everything as it was: where it is missing, in the
   * nearest folder there is, under a name that no other start has.
   * @throws as `create`
   */
  static async probe(cacheDir: string): Promise<void> {
    await CacheFolder.find(cacheDir);
    const dir = path.join(path.resolve(cacheDir), WEIGHTS_FOLDER);
    try {
      const [outermost] = await findMissingFolders(dir);
      if (outermost === undefined) await CacheFolder.create(cacheDir);
      const parent = outermost === undefined ? dir : path.dirname(outermost);
      await rmdir(await mkdtemp(path.join(parent, '.fdq-')));
    } catch (error) {
      throw writeFailure(dir, error);
    }
  }

  entryDir(key: string): string {
    return path.join(this.dir, key);
  }

  /** Every entry, the least recently used first. */
  async list(): Promise<readonly CacheEntry[]> {
    const found = await readdir(this.dir).catch((error: unknown) => {
      throw unreadable(this.dir, error);
    });
    const names = found.filter((name) => KEY.test(name));
    const entries = await Promise.all(names.map((key) => this.#describe(key)));
    return entries.sort((a, b) => a.usedAt.getTime() - b.usedAt.getTime());
  }

  /**
   * An entry whose files belong to this user, parse and have the right sizes; undefined when there is none.
   * @throws UserError naming what is wrong with it
   */
  async find(key: string): Promise<OpenedEntry | undefined> {
    const dir = this.entryDir(key);
    if ((await statOf(dir)) === undefined) return undefined;
    await requirePrivate(dir);
    for (const name of [MANIFEST_FILE, WEIGHTS_FILE]) await requirePlainFile(path.join(dir, name));
    const file = path.join(dir, MANIFEST_FILE);
    const manifest = parseCacheManifest(await readSmallFile(file, MAX_MANIFEST_BYTES), MANIFEST_FILE);
    if (manifest.key !== key) throw damaged(dir, `it says its key is ${manifest.key}`);
    return { manifest, weights: await identifyWeights(dir, manifest.weights.bytes) };
  }

  /** What is wrong with an entry, its bytes compared with their digests; undefined when nothing is. */
  async findProblem(key: string, threads: number): Promise<string | undefined> {
    try {
      const entry = await this.find(key);
      if (entry === undefined) return undefined;
      const name = await findDamagedTensor(entry.weights, entry.manifest.weights.tensors, { threads });
      return name === undefined ? undefined : `The bytes of ${name} have changed.`;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Notes that an entry was used now. */
  async touch(key: string): Promise<void> {
    const now = new Date();
    await utimes(path.join(this.entryDir(key), MANIFEST_FILE), now, now);
  }

  /**
   * Processes that have the entry mapped keep its bytes.
   * @throws UserError `write_failed`
   */
  async remove(key: string): Promise<void> {
    const dir = this.entryDir(key);
    try {
      await rm(dir, { recursive: true, force: true });
    } catch (error) {
      throw writeFailure(dir, error);
    }
  }

  /** Removes what processes that were killed while they wrote left behind. */
  async removeAbandoned(): Promise<void> {
    await removeAbandoned(this.dir);
  }

  /**
   * Makes room for an entry by removing those unused for longest.
   * @returns false when it does not fit: `maxBytes` for all entries, and half of the disk's free space
   */
  async makeRoom(bytes: number, maxBytes: number): Promise<boolean> {
    await this.removeAbandoned();
    const { bavail, bsize } = await statfs(this.dir);
    if (bytes > maxBytes || bytes > (bavail * bsize) / 2) return false;
    const entries = await this.list();
    let total = entries.reduce((sum, entry) => sum + entry.bytes, 0);
    for (const entry of entries) {
      if (total + bytes <= maxBytes) break;
      await this.remove(entry.key);
      total -= entry.bytes;
    }
    return true;
  }

  async #describe(key: string): Promise<CacheEntry> {
    const dir = this.entryDir(key);
    const stats = await lstat(path.join(dir, MANIFEST_FILE)).catch(() => lstat(dir));
    const size = await lstat(path.join(dir, WEIGHTS_FILE)).catch(() => ({ size: 0 }));
    const base = { key, dir, bytes: size.size, usedAt: stats.mtime };
    try {
      const opened = await this.find(key);
      return opened === undefined ? base : { ...base, manifest: opened.manifest };
    } catch (error) {
      return { ...base, problem: error instanceof Error ? error.message : String(error) };
    }
  }
}

async function statOf(file: string): Promise<Stats | undefined> {
  try {
    return await lstat(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(file, error);
  }
}

function unreadable(dir: string, cause: unknown): UserError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reasons: Readonly<Record<string, string>> = {
    EACCES: 'this user may not read it',
    ENOTDIR: 'a part of the path is not a folder',
  };
  return new UserError(
    'usage',
    `The cache folder ${JSON.stringify(dir)} cannot be used: ${reasons[code ?? ''] ?? message}.`,
    {
      param: 'cache-dir',
      suggestions: ['Choose another one: --cache-dir; or none: --no-cache.'],
      cause,
    },
  );
}

async function requirePrivate(dir: string): Promise<void> {
  const stats = await lstat(dir);
  if (stats.isSymbolicLink()) throw unsafe(dir, 'it is a symbolic link');
  if (!stats.isDirectory()) throw unsafe(dir, 'it is not a folder');
  if (stats.uid !== process.getuid?.()) throw unsafe(dir, 'it belongs to another user');
  if ((stats.mode & WRITABLE_BY_OTHERS) !== 0) throw unsafe(dir, 'other users may write to it');
}

async function requirePlainFile(file: string): Promise<void> {
  const stats = await lstat(file);
  const isPlain = stats.isFile() && stats.nlink === 1 && stats.uid === process.getuid?.();
  if (isPlain && (stats.mode & WRITABLE_BY_OTHERS) === 0) return;
  throw damaged(
    path.dirname(file),
    `${path.basename(file)} is not a plain file that only this user may write`,
  );
}

function unsafe(dir: string, why: string): UserError {
  return new UserError('usage', `The cache folder ${JSON.stringify(dir)} cannot be trusted: ${why}.`, {
    param: 'cache-dir',
    suggestions: [
      `Make it a folder only you may write to: chmod 700 ${dir}`,
      'Or choose another one: --cache-dir; or none: --no-cache.',
    ],
  });
}

function damaged(dir: string, why: string): UserError {
  return new UserError('invalid_checkpoint', `The cache entry ${dir} is damaged: ${why}.`, {
    param: dir,
    suggestions: ['Remove it: fdq cache clear.'],
  });
}
