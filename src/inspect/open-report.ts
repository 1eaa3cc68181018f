import { readFile } from 'node:fs/promises';
import { UserError } from '../errors.js';
import { REPORT_SCHEMA, type InspectReport } from './report.js';

/**
 * A report that `fdq inspect --json` printed, with the envelope or without it.
 * @throws UserError `report_not_found`, `invalid_config`
 */
export async function openReport(file: string): Promise<InspectReport> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new UserError('report_not_found', `Cannot read the report ${JSON.stringify(file)}.`, {
      param: file,
      suggestions: ['Write one with fdq inspect MODEL --json > report.json.'],
      cause,
    });
  }
  const report = findReport(parse(text));
  if (report !== undefined) return report;
  throw new UserError(
    'invalid_config',
    `Expected ${JSON.stringify(file)} to be a report of fdq inspect --json (${REPORT_SCHEMA}).`,
    {
      param: file,
      suggestions: ['Write it again with this version: fdq inspect MODEL --json > report.json.'],
    },
  );
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text, (_key, value: unknown) => (value === 'Infinity' ? Infinity : value));
  } catch {
    return undefined;
  }
}

function findReport(value: unknown): InspectReport | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { result, schema, layers } = value as Record<string, unknown>;
  if (schema === REPORT_SCHEMA && Array.isArray(layers)) return value as InspectReport;
  return result === undefined ? undefined : findReport(result);
}
