import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/**
 * Bytes this process may still take: what the kernel calls available, or the rest of the control group's limit
 * when that is smaller. `root` is where proc and sys are mounted.
 */
export function availableMemoryBytes(root = '/'): number {
  return Math.min(kernelAvailableBytes(root), controlGroupRestBytes(path.join(root, 'sys/fs/cgroup')));
}

function kernelAvailableBytes(root: string): number {
  const text = readText(path.join(root, 'proc/meminfo')) ?? '';
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1];
  return kibibytes === undefined ? os.freemem() : Number(kibibytes) * 1024;
}

/** Control group v2. Its use counts the page cache, e.g. the checkpoint itself, whose cold part is given back. */
function controlGroupRestBytes(folder: string): number {
  const limit = Number(readText(path.join(folder, 'memory.max')) ?? NaN); // "max" when there is none
  const current = Number(readText(path.join(folder, 'memory.current')) ?? NaN);
  const cold = /^inactive_file (\d+)$/m.exec(readText(path.join(folder, 'memory.stat')) ?? '')?.[1];
  const used = current - Number(cold ?? 0);
  return Number.isFinite(limit) && Number.isFinite(used) ? Math.max(0, limit - used) : Infinity;
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined; // not this kernel
  }
}
