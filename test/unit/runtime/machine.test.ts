import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { availableMemoryBytes } from '../../../src/runtime/machine.js';
import { createTempDir } from '../../helpers/temp-dir.js';

async function machine(files: Readonly<Record<string, string>>): Promise<number> {
  const root = await createTempDir();
  for (const [name, text] of Object.entries(files)) {
    const file = path.join(root, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  return availableMemoryBytes(root);
}

const meminfo = 'MemTotal:       2000 kB\nMemAvailable:   1000 kB\n';

describe('availableMemoryBytes', () => {
  it("takes the kernel's figure when no control group limits it", async () => {
    expect(await machine({ 'proc/meminfo': meminfo })).toBe(1000 * 1024);
    const unlimited = { 'sys/fs/cgroup/memory.max': 'max\n', 'sys/fs/cgroup/memory.current': '5\n' };
    expect(await machine({ 'proc/meminfo': meminfo, ...unlimited })).toBe(1000 * 1024);
  });

  it('takes the rest of a smaller control group, its cold page cache not counted as used', async () => {
    const limited = {
      'proc/meminfo': meminfo,
      'sys/fs/cgroup/memory.max': '500000\n',
      'sys/fs/cgroup/memory.current': '400000\n',
    };
    expect(await machine(limited)).toBe(100_000);
    const stat = { 'sys/fs/cgroup/memory.stat': 'anon 1\ninactive_file 300000\n' };
    expect(await machine({ ...limited, ...stat })).toBe(400_000);
    expect(await machine({ ...limited, 'sys/fs/cgroup/memory.current': '600000\n' })).toBe(0);
  });

  it('is positive on this machine', () => {
    expect(availableMemoryBytes()).toBeGreaterThan(0);
  });
});
