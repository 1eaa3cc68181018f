import type { FlagTable } from './flag-row.js';

/** Flags of every bench command that decide about its figures. */
export const BENCH_GATE_FLAGS = {
  'fail-if': {
    kind: 'list',
    group: 'GATE',
    summary:
      "Exit with 4 when it holds, e.g. 'kl > 0.02', or relative to the baseline 'decode < -5%', or of one scenario 'decode[wint4 b=8] < 30'; may be repeated.",
    commandLineOnly: true,
  },
  baseline: {
    kind: 'text',
    group: 'GATE',
    summary: 'Report that changes are relative to: a file of --save-baseline or --json.',
    commandLineOnly: true,
  },
  'save-baseline': {
    kind: 'text',
    group: 'GATE',
    summary: 'File for the report of this run, for later runs to compare with; an old one is replaced.',
    commandLineOnly: true,
  },
  'allow-other-machine': {
    kind: 'boolean',
    group: 'GATE',
    summary: 'Compare speeds with a baseline of another machine; without it they are inconclusive.',
  },
} as const satisfies FlagTable;

/** Flags of `fdq bench` about repeating until the gate can tell. */
export const BENCH_ROUNDS_FLAGS = {
  'baseline-command': {
    kind: 'text',
    group: 'GATE',
    summary:
      "Command of another build, e.g. 'node old/bin/run.js', measured in turns with this one and compared with it.",
    commandLineOnly: true,
  },
  'time-budget': {
    kind: 'text',
    group: 'GATE',
    default: '2m',
    summary: 'How long to repeat while --fail-if is undecided, e.g. 90s or 5m; 0s: never.',
  },
  'min-rounds': {
    kind: 'integer',
    group: 'GATE',
    min: 1,
    default: '24',
    summary: 'Pairs of rounds of both builds before the first verdict.',
  },
  'max-rounds': {
    kind: 'integer',
    group: 'GATE',
    min: 1,
    default: '400',
    summary: 'Pairs of rounds of both builds after which an undecided comparison is inconclusive.',
  },
} as const satisfies FlagTable;
