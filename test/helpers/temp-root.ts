import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';

const PREFIX = 'fdq-tests-';

/**
 * Every test, and what it starts, makes temporary files in one folder, which goes when all have ended. What tests
 * left there is named, and fails nothing: a process that was killed may have left it.
 */
export function setup(): (() => void) | undefined {
  const before = process.env['TMPDIR'];
  // Each project sets up.
  if (path.basename(before ?? '').startsWith(PREFIX)) return undefined;
  const root = mkdtempSync(path.join(tmpdir(), PREFIX));
  process.env['TMPDIR'] = root;
  return () => {
    if (before === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = before;
    const left = readdirSync(root).filter((name) => name.startsWith('fdq-'));
    if (left.length > 0)
      process.stderr.write(`Tests left ${left.join(', ')} in the folder for temporary files.\n`);
    try {
      rmSync(root, { recursive: true, force: true, maxRetries: 5 });
    } catch (error) {
      // What still writes there is no failure either.
      process.stderr.write(`${root} was not removed: ${String(error)}\n`);
    }
  };
}
