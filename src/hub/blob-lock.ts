import { link, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import { randomBytes } from 'node:crypto';

/** A partial file that nobody else of fdq writes to. */
export interface PartialFile {
  readonly path: string;
  /** Kept after a failure, so that a later call goes on with it. */
  readonly isResumable: boolean;
  readonly release: () => Promise<void>;
}

/** A holder on another machine cannot be asked; it is taken for dead when it wrote nothing for so long. */
const STALE_AFTER_MS = 10 * 60_000;

/** Locks that this process holds or is about to take: whoever else of it comes takes a private file. */
const claimedHere = new Set<string>();

async function readAgeMs(path: string): Promise<number> {
  try {
    return Date.now() - (await stat(path)).mtimeMs;
  } catch {
    return 0;
  }
}

function isProcessAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function isStale(holder: string, lockPath: string, partialPath: string): Promise<boolean> {
  const [host, pidText] = holder.split(' ');
  const pid = Number(pidText);
  if (host !== hostname() || !Number.isSafeInteger(pid) || pid <= 0) {
    const ages = await Promise.all([readAgeMs(lockPath), readAgeMs(partialPath)]);
    return Math.min(...ages) > STALE_AFTER_MS;
  }
  // This process holds no lock that it tries to take: a container that restarts gives its processes the same ids again.
  return pid === process.pid || !isProcessAlive(pid);
}

async function tryLock(lockPath: string): Promise<boolean> {
  try {
    const handle = await open(lockPath, 'wx');
    await handle.writeFile(`${hostname()} ${process.pid}`);
    await handle.close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Takes a lock away from `holder`, unless it is somebody else's by now. */
async function breakLock(lockPath: string, holder: string): Promise<void> {
  const taken = `${lockPath}.${randomBytes(6).toString('hex')}`;
  try {
    await rename(lockPath, taken);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if ((await readFile(taken, 'utf8')) !== holder) await link(taken, lockPath).catch(() => undefined);
  await rm(taken, { force: true });
}

async function takeLock(lockPath: string, partialPath: string): Promise<boolean> {
  if (await tryLock(lockPath)) return true;
  const holder = await readFile(lockPath, 'utf8').catch(() => '');
  if (!(await isStale(holder, lockPath, partialPath))) return false;
  await breakLock(lockPath, holder);
  return tryLock(lockPath);
}

/**
 * The partial file of a blob: `<blob>.incomplete`, the name huggingface_hub uses, while no live process holds it; else
 * a private one, so two processes that start together both succeed.
 */
export async function claimPartialFile(blobPath: string): Promise<PartialFile> {
  const path = `${blobPath}.incomplete`;
  const lockPath = `${blobPath}.lock`;
  const privatePath = `${blobPath}.${randomBytes(6).toString('hex')}.incomplete`;
  const ownFile = { path: privatePath, isResumable: false, release: () => Promise.resolve() };
  if (claimedHere.has(lockPath)) return ownFile;
  claimedHere.add(lockPath);
  let isLocked = false;
  try {
    isLocked = await takeLock(lockPath, path);
  } finally {
    if (!isLocked) claimedHere.delete(lockPath);
  }
  if (!isLocked) return ownFile;
  return {
    path,
    isResumable: true,
    release: async () => {
      await rm(lockPath, { force: true });
      claimedHere.delete(lockPath);
    },
  };
}
