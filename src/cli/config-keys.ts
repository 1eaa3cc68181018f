import { BENCH_SPEED_FLAGS } from './bench-flags.js';
import { BENCH_ROUNDS_FLAGS } from './bench-gate-flags.js';
import { BENCH_QUALITY_FLAGS } from './bench-quality-flags.js';
import { BENCH_SERVE_FLAGS } from './bench-serve-flags.js';
import { CONVERT_FLAGS } from './convert-flags.js';
import type { FlagRow, FlagTable } from './flag-row.js';
import { SERVE_FLAGS } from './flags.js';
import { INSPECT_FLAGS } from './inspect-flags.js';

/** The flags of every command: one config file serves them all. */
const TABLES: readonly FlagTable[] = [
  SERVE_FLAGS,
  INSPECT_FLAGS,
  CONVERT_FLAGS,
  BENCH_SPEED_FLAGS,
  BENCH_ROUNDS_FLAGS,
  BENCH_QUALITY_FLAGS,
  BENCH_SERVE_FLAGS,
];

/** The flags of every command, each as often as tables have it. */
export function listFlags(): readonly (readonly [string, FlagRow])[] {
  return TABLES.flatMap((table) => Object.entries(table));
}

/** The flag of a table that a config file sets under this name, spelt with `-`. */
export function findConfigKey(name: string, table: FlagTable): readonly [string, FlagRow] | undefined {
  return settable(table).find(([flag, row]) => flag === name || row.aliases?.includes(name) === true);
}

/** Whether any command has such a key. */
export function isConfigKey(name: string): boolean {
  return TABLES.some((table) => findConfigKey(name, table) !== undefined);
}

/** Keys of any command, those of `table` first. */
export function listConfigKeys(table: FlagTable): readonly string[] {
  return [...new Set([table, ...TABLES].flatMap((each) => settable(each).map(([flag]) => flag)))];
}

function settable(table: FlagTable): readonly (readonly [string, FlagRow])[] {
  return Object.entries(table).filter(([flag, row]) => row.commandLineOnly !== true && flag !== 'config');
}
