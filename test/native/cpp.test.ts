import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';

const folder = path.join(import.meta.dirname, 'cpp');
const names = readdirSync(folder)
  .filter((name) => name.endsWith('_test.cc'))
  .map((name) => path.basename(name, '.cc'));

describe('C++ kernels', () => {
  const executables = new Map<string, string>();

  beforeAll(() => {
    const script = path.join(import.meta.dirname, '..', '..', 'scripts', 'native-tests.mjs');
    const paths = execFileSync(process.execPath, [script], { encoding: 'utf8' }).trim().split('\n');
    for (const executable of paths) executables.set(path.basename(executable), executable);
  });

  it.each(names)('%s passes', (name) => {
    const result = spawnSync(executables.get(name) ?? name, { encoding: 'utf8' });
    expect(result.status, result.stdout + result.stderr).toBe(0);
  });
});
