import type { FlagTable } from './flag-row.js';

/** How every `fdq bench` command shows what it measured. */
export const BENCH_REPORT_FLAGS = {
  reporter: {
    kind: 'list',
    group: 'OUTPUT',
    summary:
      'Report as NAME, or NAME:FILE for a file: table, markdown, json, jsonl, csv, junit, github, gha-benchmark or openmetrics; may be repeated. Default: table, and github in GitHub Actions.',
  },
  html: {
    kind: 'text',
    group: 'OUTPUT',
    summary: 'File for the report as one page with pictures.',
  },
} as const satisfies FlagTable;
