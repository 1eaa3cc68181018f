import { UnsupportedError, UserError } from '../errors.js';
import { mergeDottedFlags, readDottedFlag, splitDottedFlag, type DottedFlag } from './dotted-flags.js';
import type { FlagRow, FlagTable } from './flag-row.js';
import type { JsonObject } from './json-values.js';
import { nearest } from './nearest.js';
import { REFUSED_FLAGS } from './refused-flags.js';

/** Flags oclif itself answers to, wherever they stand. */
export const BUILT_IN: readonly string[] = ['help', 'version', 'json'];

/**
 * The words of a command line in the form the parser knows: `--max_model_len=4` becomes `--max-model-len=4`, and
 * `--quantization-config.ignore+ a` becomes `--quantization-config {"ignore":["a"]}`. Values and everything after
 * `--` stay as they are.
 * @throws UserError `usage` naming the first flag that does not exist, with the nearest one that does
 */
export function normaliseArgv(argv: readonly string[], table: FlagTable): readonly string[] {
  const rows = longNames(table);
  const result: string[] = [];
  const dotted = new Map<string, JsonObject[]>();
  const finish = (rest: readonly string[]): readonly string[] => [
    ...result,
    ...[...dotted].flatMap(([name, objects]) => [
      `--${name}`,
      JSON.stringify(mergeDottedFlags(name, objects)),
    ]),
    ...rest,
  ];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (word === '--') return finish(argv.slice(i));
    const keyed = splitDottedFlag(word);
    if (keyed !== undefined) {
      const value = keyed.value ?? argv[++i];
      dotted.set(keyed.name, [...(dotted.get(keyed.name) ?? []), readKeyed(keyed, value, rows)]);
      continue;
    }
    const flag = word.startsWith('--') ? normaliseLongFlag(word, rows) : word;
    result.push(flag);
    if (takesNextWord(flag, table, rows) && i + 1 < argv.length) result.push(argv[++i] ?? '');
  }
  return finish([]);
}

type Rows = ReadonlyMap<string, FlagRow | undefined>;

function readKeyed(keyed: DottedFlag, value: string | undefined, rows: Rows): JsonObject {
  const row = rows.get(keyed.name);
  if (row === undefined) throw unknownFlag(keyed.name, [...rows.keys()]);
  if (value !== undefined) return readDottedFlag(keyed, value, row);
  const flag = `--${keyed.name}.${keyed.path}`;
  throw new UserError('usage', `${flag} expects a value.`, {
    param: keyed.name,
    suggestions: [`Write ${flag} <value>.`],
  });
}

/** Every long spelling: names, aliases and `no-` forms. */
function longNames(table: FlagTable): Rows {
  const names = new Map<string, FlagRow | undefined>(BUILT_IN.map((name) => [name, undefined]));
  for (const [name, row] of Object.entries(table)) {
    for (const spelling of [name, ...(row.aliases ?? [])]) {
      names.set(spelling, row);
      if (row.negatable === true) names.set(`no-${spelling}`, row);
    }
  }
  return names;
}

function normaliseLongFlag(word: string, rows: Rows): string {
  const [typed = '', ...rest] = word.slice(2).split('=');
  const name = typed.replaceAll('_', '-');
  if (!rows.has(name)) throw unknownFlag(name, [...rows.keys()]);
  const row = rows.get(name);
  if (rest.length > 0 && (row === undefined || row.kind === 'boolean')) {
    throw new UserError('usage', `--${name} takes no value but received ${JSON.stringify(rest.join('='))}.`, {
      param: name,
      suggestions: [row?.negatable === true ? `Use --${name} or --no-${name}.` : `Use --${name} alone.`],
    });
  }
  return [`--${name}`, ...rest].join('=');
}

/** A value may begin with a dash (`--max-waiting-time -1`), so it is never looked at. */
function takesNextWord(word: string, table: FlagTable, rows: Rows): boolean {
  if (word.startsWith('--')) {
    const row = rows.get(word.slice(2));
    return row !== undefined && row.kind !== 'boolean';
  }
  const row = Object.values(table).find(({ char }) => char !== undefined && word === `-${char}`);
  return row !== undefined && row.kind !== 'boolean';
}

/** The error for a flag that does not exist: known elsewhere and refused, or mistyped. */
export function unknownFlag(name: string, known: readonly string[]): UserError {
  const why = REFUSED_FLAGS[name.replace(/^no-/, '')];
  if (why !== undefined) {
    return new UnsupportedError('usage', `--${name} is not supported: ${why}.`, {
      param: name,
      suggestions: [`Leave --${name} out.`],
    });
  }
  const guess = nearest(name, known);
  return new UserError('usage', `Unknown flag --${name}.`, {
    param: name,
    suggestions: [
      guess === undefined
        ? 'See all flags with --help.'
        : `Did you mean --${guess}? See all flags with --help.`,
    ],
  });
}
