import { readFileSync } from 'node:fs';
import { writeFileWhole } from '../../cli/write-file.js';
import { describeMismatch, nameExpected } from '../../describe-issue.js';
import { UserError } from '../../errors.js';
import { BENCH_COMMANDS, BENCH_SCHEMA, type BenchKind, type BenchReport } from '../report.js';
import { reportSchema } from './report-schema.js';

/**
 * A report that --save-baseline, --json or the reporter `json` wrote, with the envelope of --json or without it.
 * @param kind of the command that it is compared with
 * @throws UserError `report_not_found` where it cannot be read, `invalid_config` where it is something else
 */
export function readBaseline(file: string, kind: BenchKind): BenchReport {
  const value = withoutEnvelope(parse(file, read(file)));
  if (!isObject(value) || !('schema' in value)) throw invalid(file, 'it is no report of fdq bench');
  if (value['schema'] !== BENCH_SCHEMA) {
    throw invalid(file, `it has the schema ${JSON.stringify(value['schema'])} and not ${BENCH_SCHEMA}`);
  }
  const parsed = reportSchema.safeParse(value, { error: nameExpected });
  if (!parsed.success) {
    const { path, text } = describeMismatch(parsed.error, value);
    throw invalid(file, `expected its "${path}" ${text}`);
  }
  if (parsed.data.kind !== kind) {
    throw invalid(
      file,
      `it was written by ${BENCH_COMMANDS[parsed.data.kind]} and not by ${BENCH_COMMANDS[kind]}`,
    );
  }
  return parsed.data as unknown as BenchReport;
}

/**
 * Writes a report that `--baseline` reads.
 * @throws UserError `write_failed`
 */
export function saveBaseline(saved: BenchReport, file: string): void {
  const text = JSON.stringify(
    saved,
    (_key, value: unknown) => (typeof value === 'number' && !Number.isFinite(value) ? String(value) : value),
    2,
  );
  writeFileWhole(file, `${text}\n`);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unreadable';
    throw new UserError('report_not_found', `Cannot read the baseline ${JSON.stringify(file)}: ${code}.`, {
      param: '--baseline',
      suggestions: ['Write one with --save-baseline on the version to compare with.'],
      cause,
    });
  }
}

function parse(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw invalid(file, 'it is no JSON', cause);
  }
}

function withoutEnvelope(value: unknown): unknown {
  return isObject(value) && !('schema' in value) && 'result' in value ? value['result'] : value;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(file: string, reason: string, cause?: unknown): UserError {
  return new UserError('invalid_config', `Cannot use the baseline ${JSON.stringify(file)}: ${reason}.`, {
    param: '--baseline',
    suggestions: ['Write it again with --save-baseline or --json of the same command.'],
    cause,
  });
}
