import { normaliseArgv } from './argv.js';
import type { FlagTable } from './flag-row.js';

/**
 * A command line without some of its flags, as another process is to get it.
 * @param table all flags of the command
 * @param removed names of those to leave out, with their values
 */
export function withoutFlags(
  argv: readonly string[],
  table: FlagTable,
  removed: ReadonlySet<string>,
): readonly string[] {
  const words = normaliseArgv(argv, table);
  const kept: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] ?? '';
    if (word === '--') return [...kept, ...words.slice(i)];
    const [, name = '', value] = /^--([^=]+)(=.*)?$/s.exec(word) ?? [];
    const flag = findFlag(name, table);
    const takesNext = value === undefined && flag !== undefined && table[flag]?.kind !== 'boolean';
    if (!removed.has(flag ?? name)) {
      kept.push(word);
      if (takesNext && i + 1 < words.length) kept.push(words[i + 1] ?? '');
    }
    if (takesNext) i++;
  }
  return kept;
}

/** The flag of a long spelling: its name, an alias or a `no-` form. */
function findFlag(spelling: string, table: FlagTable): string | undefined {
  return Object.keys(table).find((name) =>
    [name, ...(table[name]?.aliases ?? [])].some((known) => spelling === known || spelling === `no-${known}`),
  );
}
