import { open, readFile, rm, stat } from 'node:fs/promises';
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

const heldHere = new Set<string>();

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

async function isStale(lockPath: string, partialPath: string): Promise<boolean> {
  const [host, pidText] = (await readFile(lockPath, 'utf8').catch(() => '')).split(' ');
  const pid = Number(pidText);
  if (host !== hostname() || !Number.isSafeInteger(pid) || pid <= 0) {
    const ages = await Promise.all([readAgeMs(lockPath), readAgeMs(partialPath)]);
    return Math.min(...ages) > STALE_AFTER_MS;
  }
  // A container that restarts gives its processes the same ids again.
  return pid === process.pid ? !heldHere.has(lockPath) : !isProcessAlive(pid);
}

async function tryLock(lockPath: string): Promise<boolean> {
  try {
    const handle = await open(lockPath, 'wx');
    await handle.writeFile(`${hostname()} ${process.pid}`);
    await handle.close();
    heldHere.add(lockPath);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/**
 * The partial file of a blob: `<blob>.incomplete`, the name huggingface_hub uses, while no live process holds it; else
 * a private one, so two processes that start together both succeed.
 */
export async function claimPartialFile(blobPath: string): Promise<PartialFile> {
  const path = `${blobPath}.incomplete`;
  const lockPath = `${blobPath}.lock`;
  let isLocked = await tryLock(lockPath);
  if (!isLocked && (await isStale(lockPath, path))) {
    await rm(lockPath, { force: true });
    isLocked = await tryLock(lockPath);
  }
  if (!isLocked) {
    const privatePath = `${blobPath}.${randomBytes(6).toString('hex')}.incomplete`;
    return { path: privatePath, isResumable: false, release: () => Promise.resolve() };
  }
  return {
    path,
    isResumable: true,
    release: async () => {
      heldHere.delete(lockPath);
      await rm(lockPath, { force: true });
    },
  };
}
