import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from '../helpers/cli.js';

/** Flags of every command, of other programs that messages name, and of Node for processes that fdq starts. */
const FOREIGN = new Set(['addon-only', 'help', 'ignore-scripts', 'import', 'include', 'local-dir']);
const SNAPSHOT = path.join(ROOT, 'test', 'contract', 'commands.snapshot.json');
const SOURCE = path.join(ROOT, 'src');

/** Names of flags in texts of a file; comments are left out. */
function flagsIn(file: string): readonly string[] {
  const text = readFileSync(file, 'utf8').replace(/\/\*[^]*?\*\/|(?<=\s)\/\/.*$/gm, '');
  // `--no-${name}` is made of the name of a flag.
  return [...text.matchAll(/(?<![\w$}-])--(?!no-\$)([a-z][a-z0-9-]*[a-z0-9])/g)].map(([, name = '']) => name);
}

describe('flags that messages name', () => {
  const known = new Set(
    [...readFileSync(SNAPSHOT, 'utf8').matchAll(/--([a-z][a-z0-9-]+)/g)].map(([, name]) => name),
  );
  // Styles of pages have names like flags.
  const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.ts') && !name.includes('html'),
  );

  it('are flags of some command', () => {
    const unknown = files.flatMap((file) =>
      flagsIn(path.join(SOURCE, file))
        .filter(
          (name) => ![name, name.replace(/^no-/, '')].some((each) => known.has(each) || FOREIGN.has(each)),
        )
        .map((name) => `${file}: --${name}`),
    );
    expect(unknown).toEqual([]);
  });
});
