import { UserError } from '../errors.js';
import { locateConfigFile, readConfigFile, type ConfigEntry } from './config-file.js';
import { environmentName, type FlagRow, type FlagTable, type FlagValues } from './flag-row.js';
import { convertValue, describeSetting, type Origin } from './flag-values.js';
import { mergeJsonObjects, parseJsonObject } from './json-values.js';

export interface Setting {
  readonly value: unknown;
  readonly origin: Origin;
}

/** What the command line said, only for the flags that were given. */
export type ParsedFlags = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

export interface SettingSources {
  readonly flags: ParsedFlags;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Folder of the config file that needs no naming. */
  readonly configDir: string;
}

export type Settings<T extends FlagTable> = { readonly [K in keyof T]: Setting };

/**
 * One value for every flag of the table: command line over environment over config file over default.
 * @throws UserError naming the flag, variable or line that holds a wrong value
 */
export function resolveSettings<T extends FlagTable>(table: T, sources: SettingSources): Settings<T> {
  const { flags, environment, configDir } = sources;
  const named = configFlag(flags) ?? environment[environmentName('config')];
  // A command without settings, such as fdq version, answers whatever the file holds.
  const file = Object.keys(table).length === 0 ? undefined : locateConfigFile(named, configDir);
  const entries = file === undefined ? [] : readConfigFile(file, table);
  const resolve = (name: string, row: FlagRow): Setting => {
    const candidate =
      fromFlags(name, flags) ??
      fromEnvironment(name, row, environment) ??
      fromFile(
        entries.find(({ flag }) => flag === name),
        file ?? '',
      ) ??
      fromDefault(row);
    return { origin: candidate.origin, value: convertAll(name, row, candidate) };
  };
  const settings = Object.entries<FlagRow>(table).map(([name, row]) => [name, resolve(name, row)] as const);
  return Object.fromEntries(settings) as Settings<T>;
}

function configFlag(flags: ParsedFlags): string | undefined {
  const file = flags['config'];
  return typeof file === 'string' ? file : undefined;
}

/** The values alone, typed by the table. */
export function valuesOf<T extends FlagTable>(settings: Settings<T>): FlagValues<T> {
  const values = Object.entries<Setting>(settings).map(([name, { value }]) => [name, value] as const);
  return Object.fromEntries(values) as FlagValues<T>;
}

/** One warning for each reason why flags that were set are not used: pasted command lines have several of them. */
export function ignoredFlagWarnings<T extends FlagTable>(table: T, settings: Settings<T>): readonly string[] {
  const byReason = new Map<string, string[]>();
  for (const [name, row] of Object.entries<FlagRow>(table)) {
    const setting = settings[name as keyof T];
    if (row.ignored === undefined || setting.value === undefined || setting.origin.kind === 'default')
      continue;
    const named = byReason.get(row.ignored) ?? [];
    byReason.set(row.ignored, [...named, describeSetting(name, setting.origin)]);
  }
  return [...byReason].map(([reason, names]) => `${names.join(', ')}: ${reason}.`);
}

interface Candidate {
  readonly texts: readonly string[] | undefined;
  readonly origin: Origin;
}

function fromFlags(name: string, flags: ParsedFlags): Candidate | undefined {
  const given = flags[name];
  if (given === undefined) return undefined;
  return { texts: typeof given === 'object' ? given : [String(given)], origin: { kind: 'flag' } };
}

function fromEnvironment(
  name: string,
  row: FlagRow,
  environment: SettingSources['environment'],
): Candidate | undefined {
  if (row.commandLineOnly === true) return undefined;
  const variable = environmentName(name);
  const text = environment[variable];
  // An empty variable is how shells and compose files say "not set".
  if (text === undefined || text === '') return undefined;
  return { texts: [text], origin: { kind: 'environment', variable } };
}

function fromFile(entry: ConfigEntry | undefined, file: string): Candidate | undefined {
  if (entry === undefined) return undefined;
  return { texts: entry.values, origin: { kind: 'file', path: file, line: entry.line } };
}

function fromDefault(row: FlagRow): Candidate {
  return { texts: row.default === undefined ? undefined : [row.default], origin: { kind: 'default' } };
}

function convertAll(name: string, row: FlagRow, { texts, origin }: Candidate): unknown {
  if (texts === undefined) return undefined;
  const setting = describeSetting(name, origin);
  if (row.kind === 'list') return listItems(row, setting, texts);
  if (row.takesFirst === true && origin.kind !== 'flag') {
    const [first] = listItems(row, setting, texts);
    return first === undefined ? undefined : convertValue(row, setting, first);
  }
  if (row.kind === 'json') {
    return mergeJsonObjects(
      texts.map((text) => parseJsonObject(text, setting)),
      setting,
    );
  }
  const [text] = texts;
  if (text === undefined || texts.length > 1) {
    throw new UserError('usage', `Expected one value for ${setting} but received ${texts.length}.`, {
      param: setting,
      suggestions: [`Give ${setting} once.`],
    });
  }
  return convertValue(row, setting, text);
}

/** The same items whether they came as words, as one text or as both. Lists of a single run are taken as they are. */
function listItems(row: FlagRow, setting: string, texts: readonly string[]): readonly string[] {
  const items = row.commandLineOnly === true ? texts : texts.flatMap((text) => splitItems(row, text));
  // An empty key is no key, which serving to others refuses.
  const given = row.secret === true ? items.filter((item) => item !== '') : items;
  if (given.includes('')) throw emptyValue(setting);
  return given;
}

function splitItems({ separator }: FlagRow, text: string): readonly string[] {
  const trimmed = text.trim();
  if (separator === 'commas next to objects' && /^[{@]/.test(trimmed)) return [trimmed];
  return trimmed.split(separator === 'lines' ? /\r?\n/ : ',').map((item) => item.trim());
}

/** Most likely a shell variable that is not set: a condition that is left out must not go unnoticed. */
function emptyValue(setting: string): UserError {
  return new UserError('usage', `Expected a value for ${setting} but received an empty one.`, {
    param: setting,
    suggestions: [`Give ${setting} a value, or leave it out.`],
  });
}

/** The settings as a config file that sets them, each with where its value came from. Secrets are hidden. */
export function printSettings<T extends FlagTable>(table: T, settings: Settings<T>): string {
  const lines = settable(table).map(([name, row]) => {
    const { value, origin } = settings[name as keyof T];
    if (value === undefined) return `# ${name}:`;
    const shown = hidden(row, value) ?? `${name}: ${JSON.stringify(value)}`;
    return `${shown.startsWith('#') ? `# ${name}: ${shown.slice(2)}` : shown}  # ${originText(origin)}`;
  });
  return `${lines.join('\n')}\n`;
}

/** The same as data. */
export function settingsAsJson<T extends FlagTable>(table: T, settings: Settings<T>): object {
  const entries = settable(table).map(([name, row]) => {
    const { value, origin } = settings[name as keyof T];
    const shown = value === undefined ? null : (hidden(row, value)?.slice(2) ?? value);
    return [name, { value: shown, origin: originText(origin) }] as const;
  });
  return Object.fromEntries(entries);
}

function settable(table: FlagTable): readonly (readonly [string, FlagRow])[] {
  return Object.entries(table).filter(([name, row]) => row.commandLineOnly !== true && name !== 'config');
}

function hidden(row: FlagRow, value: unknown): string | undefined {
  if (row.secret !== true) return undefined;
  return `# ${Array.isArray(value) ? value.length : 1} hidden`;
}

function originText(origin: Origin): string {
  if (origin.kind === 'environment') return origin.variable;
  if (origin.kind === 'file') return `${origin.path}:${origin.line}`;
  return origin.kind === 'flag' ? 'command line' : 'default';
}
