import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TestRunner, onTestFinished } from 'vitest';

/**
 * A fresh folder that belongs to the running test and is removed when it ends. Of tests that run concurrently
 * only they themselves know which they are: they pass the `onTestFinished` of their context.
 */
export async function createTempDir(onFinished?: typeof onTestFinished): Promise<string> {
  if (onFinished === undefined && TestRunner.getCurrentTest()?.concurrent === true) {
    throw new Error('a concurrent test has to pass the onTestFinished of its context');
  }
  const register = onFinished ?? onTestFinished;
  const dir = await mkdtemp(join(tmpdir(), 'fdq-test-'));
  register(() => rm(dir, { recursive: true, force: true }));
  return dir;
}
