import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A fresh folder that belongs to the running test and is removed when it ends. */
export async function createTempDir(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'fdq-test-'));
  onTestFinished(() => rm(dir, { recursive: true, force: true }));
  return dir;
}
