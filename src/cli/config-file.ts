import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Node, Pair, Scalar } from 'yaml';
import { UserError } from '../errors.js';
import { findConfigKey, isConfigKey, listConfigKeys } from './config-keys.js';
import type { FlagRow, FlagTable } from './flag-row.js';
import { nearest } from './nearest.js';
import { loadYaml } from './yaml.js';

/** One key of a config file: the flag it sets, its values as text, and the line it stands on. */
export interface ConfigEntry {
  readonly flag: string;
  readonly values: readonly string[];
  readonly line: number;
}

/** The file `--config` or FDQ_CONFIG names, else the one in `configDir` if there is one. */
export function locateConfigFile(named: string | undefined, configDir: string): string | undefined {
  if (named !== undefined && named !== '') return named;
  const standard = path.join(configDir, 'config.yaml');
  return existsSync(standard) ? standard : undefined;
}

/**
 * Reads a YAML or JSON file (JSON is YAML) whose keys are long flag names, with `-` or `_`. Keys that only other
 * commands have are passed over.
 * @throws UserError `invalid_config` naming file and line
 */
export function readConfigFile(file: string, table: FlagTable): readonly ConfigEntry[] {
  const text = readText(file);
  const { LineCounter, isMap, parseDocument } = loadYaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  const lineOf = (node: unknown): number => lines.linePos((node as Node | null)?.range?.[0] ?? 0).line;
  const problem = document.errors[0];
  if (problem !== undefined) {
    const line = lines.linePos(problem.pos[0]).line;
    throw invalid(file, line, firstLine(problem.message), 'Check the YAML of this line.');
  }
  if (document.contents === null) return [];
  if (!isMap(document.contents)) {
    throw invalid(file, 1, 'the file is not a list of `flag: value` lines', 'Write lines like `port: 8000`.');
  }
  return document.contents.items.flatMap((pair) => readEntry(pair, { file, table, lineOf }) ?? []);
}

interface Reading {
  readonly file: string;
  readonly table: FlagTable;
  readonly lineOf: (node: unknown) => number;
}

function readEntry(pair: Pair, { file, table, lineOf }: Reading): ConfigEntry | undefined {
  const { isScalar } = loadYaml();
  const line = lineOf(pair.key);
  const key = isScalar(pair.key) ? String(pair.key.value) : '';
  const name = key.replaceAll('_', '-');
  const [flag, row] = findConfigKey(name, table) ?? [];
  if (flag !== undefined && row !== undefined) {
    return { flag, line, values: readValues(pair.value, row, { file, line, flag }) };
  }
  if (isConfigKey(name)) return undefined;
  const guess = nearest(name, listConfigKeys(table));
  throw invalid(
    file,
    line,
    `unknown key ${JSON.stringify(key)}`,
    guess === undefined ? 'Keys are the long flag names of fdq serve --help.' : `Did you mean ${guess}?`,
  );
}

function readValues(
  value: unknown,
  row: FlagRow,
  at: { readonly file: string; readonly line: number; readonly flag: string },
): readonly string[] {
  const { isMap, isScalar, isSeq } = loadYaml();
  if (isScalar(value)) {
    if (value.value === null) throw invalid(at.file, at.line, `${at.flag} has no value`, 'Remove the line.');
    return [scalarText(value)];
  }
  if (isMap(value) && row.kind === 'json') return [JSON.stringify(value.toJSON())];
  if (isMap(value) && at.flag === 'quantization') return [JSON.stringify(value.toJSON())];
  const isList = row.kind === 'list' || row.takesFirst === true;
  if (isSeq(value) && isList && value.items.every((item) => isScalar(item))) {
    return value.items.map((item) => (isScalar(item) ? scalarText(item) : ''));
  }
  const wanted = row.kind === 'list' ? 'a list of values' : row.kind === 'json' ? 'a mapping' : 'one value';
  throw invalid(at.file, at.line, `${at.flag} is not ${wanted}`, `Give ${at.flag} ${wanted}.`);
}

/** As written, so that `1e3` or `0x10` reach the same check as on the command line. */
function scalarText({ value, source }: Scalar): string {
  return typeof value === 'string' ? value : (source ?? JSON.stringify(value));
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new UserError('invalid_config', `Cannot read the config file ${file}: ${code}.`, {
      param: 'config',
      cause,
      suggestions: ['Check the path given with --config or FDQ_CONFIG.'],
    });
  }
}

function firstLine(message: string): string {
  return (message.split('\n', 1)[0] ?? message).replace(/ at line \d+, column \d+:?$/, '');
}

function invalid(file: string, line: number, what: string, suggestion: string): UserError {
  return new UserError('invalid_config', `Line ${line} of ${file}: ${what}.`, {
    param: 'config',
    suggestions: [suggestion],
  });
}
