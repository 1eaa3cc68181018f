import { Flags, type Interfaces } from '@oclif/core';

/** Headings of the help screen. */
export type FlagGroup =
  | 'MODEL'
  | 'QUANTIZATION'
  | 'CACHE'
  | 'MEMORY'
  | 'MEASUREMENT'
  | 'DATASET'
  | 'SERVER'
  | 'GATE'
  | 'OUTPUT'
  | 'GLOBAL';

/** TypeScript type of a flag's value, by the kind its row names. */
interface KindValues {
  readonly text: string;
  readonly choice: string;
  readonly boolean: boolean;
  readonly integer: number;
  readonly number: number;
  /** Bytes, written like `8GiB`. */
  readonly size: number;
  /** Tokens, written like `32k`. */
  readonly length: number;
  readonly port: number;
  readonly json: Readonly<Record<string, unknown>>;
  readonly list: readonly string[];
}

export type FlagKind = keyof KindValues;

/** One flag as data. Help, environment name, config file key, completion and checks all derive from it. */
export interface FlagRow {
  readonly kind: FlagKind;
  readonly group: FlagGroup;
  readonly summary: string;
  readonly char?: 'b' | 'd' | 'm' | 'n' | 'o' | 'p' | 'q' | 'r' | 't';
  readonly aliases?: readonly string[];
  /** Written as a user would type it. */
  readonly default?: string;
  /** What a `choice` accepts. */
  readonly options?: readonly string[];
  /** Names other programs have for some of the options, lower case. With them, case does not matter. */
  readonly spellings?: Readonly<Record<string, string>>;
  /** Values other servers have and this version refuses, with the reason. */
  readonly refused?: Readonly<Record<string, string>>;
  readonly min?: number;
  readonly max?: number;
  /** A boolean with a `--no-` form. */
  readonly negatable?: boolean;
  /** Keys of a `json` flag whose own keys are names with dots: `--flag.<key>.<name>` is not split further. */
  readonly nameKeys?: readonly string[];
  /** A list that takes every word up to the next flag. */
  readonly greedy?: boolean;
  /** What stands between the items of a list in one text; default: commas. Next to objects: JSON or @file is one item. */
  readonly separator?: 'lines' | 'commas next to objects';
  /** Of a list in the environment or the config file, which is one for another command, the first counts. */
  readonly takesFirst?: boolean;
  /** Never printed. */
  readonly secret?: boolean;
  /** An action of the command line alone: no environment variable, no config file key. */
  readonly commandLineOnly?: boolean;
  /** Accepted for the sake of copied command lines; this is the warning. */
  readonly ignored?: string;
}

export type FlagTable = Readonly<Record<string, FlagRow>>;

/** Values of a table: undefined only where the row has no default. */
export type FlagValues<T extends FlagTable> = {
  readonly [K in keyof T]: T[K] extends { readonly default: string }
    ? ValueOfRow<T[K]>
    : ValueOfRow<T[K]> | undefined;
};

type ValueOfRow<R extends FlagRow> = R extends { kind: 'choice'; options: readonly (infer O)[] }
  ? O
  : KindValues[R['kind']];

/** `max-model-len` is set by `FDQ_MAX_MODEL_LEN`. */
export function environmentName(flag: string): string {
  return `FDQ_${flag.replaceAll('-', '_').toUpperCase()}`;
}

type OclifFlags = Interfaces.FlagInput;
type OclifFlag = OclifFlags[string];

/** The table as oclif shows it in help, completion and the manifest. */
export function toOclifFlags(table: FlagTable): OclifFlags {
  return mapRows(table, (name, row) => ({
    ...(row.commandLineOnly === true ? {} : { env: environmentName(name) }),
    ...defaultForHelp(row),
  }));
}

/**
 * The table as oclif parses it: strings from the command line only. Environment, config file, defaults and
 * conversion happen in settings.ts, which remembers where each value came from. Objects may be given in parts.
 */
export function toParserFlags(table: FlagTable): OclifFlags {
  return mapRows(table, (_, row) => (row.kind === 'json' ? { multiple: true, multipleNonGreedy: true } : {}));
}

function defaultForHelp(row: FlagRow): object {
  if (row.default === undefined) return {};
  if (row.kind === 'boolean') return { default: row.default === 'true' };
  return { default: row.kind === 'list' ? [row.default] : row.default };
}

function mapRows(table: FlagTable, extra: (name: string, row: FlagRow) => object): OclifFlags {
  return Object.fromEntries(
    Object.entries(table).map(([name, row]) => {
      const common = {
        summary: row.summary,
        helpGroup: row.group,
        ...(row.char === undefined ? {} : { char: row.char }),
        ...(row.aliases === undefined ? {} : { aliases: [...row.aliases] }),
        ...extra(name, row),
      };
      return [name, row.kind === 'boolean' ? booleanFlag(row, common) : stringFlag(row, common)];
    }),
  );
}

function booleanFlag(row: FlagRow, common: object): OclifFlag {
  return Flags.boolean({ ...common, allowNo: row.negatable === true });
}

function stringFlag(row: FlagRow, common: object): OclifFlag {
  const helpValue = row.kind === 'choice' ? `<${(row.options ?? []).join('|')}>` : HELP_VALUES[row.kind];
  const settings = { helpValue, ...common };
  if (row.kind !== 'list') return Flags.string(settings);
  return Flags.string({ ...settings, multiple: true, multipleNonGreedy: row.greedy !== true });
}

const HELP_VALUES: Readonly<Record<FlagKind, string>> = {
  text: '<value>',
  choice: '<value>',
  boolean: '',
  integer: '<n>',
  number: '<x>',
  size: '<size>',
  length: '<tokens>',
  port: '<port>',
  json: '<json|@file>',
  list: '<value>',
};
