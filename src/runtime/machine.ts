import { readFileSync } from 'node:fs';
import os from 'node:os';

/**
 * Bytes this process may still take: what the kernel calls available, or the rest of the control group's limit
 * when that is smaller.
 */
export function availableMemoryBytes(): number {
  return Math.min(kernelAvailableBytes(), controlGroupRestBytes());
}

function kernelAvailableBytes(): number {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(readText('/proc/meminfo') ?? '')?.[1];
  return kibibytes === undefined ? os.freemem() : Number(kibibytes) * 1024;
}

function controlGroupRestBytes(): number {
  const limit = Number(readText('/sys/fs/cgroup/memory.max') ?? NaN); // "max" when there is none
  const used = Number(readText('/sys/fs/cgroup/memory.current') ?? NaN);
  return Number.isFinite(limit) && Number.isFinite(used) ? Math.max(0, limit - used) : Infinity;
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined; // not this kernel
  }
}
