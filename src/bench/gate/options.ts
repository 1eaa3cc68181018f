import { UserError } from '../../errors.js';
import { parseQuantity } from '../../inspect/quantities.js';
import { BENCH_COMMANDS, type BenchKind, type BenchReport } from '../report.js';
import { readBaseline } from './baseline-file.js';
import { parseGateCondition, type GateCondition } from './conditions.js';
import { refuseLeftOut, type LeftOut } from './left-out.js';
import { splitCommand } from './split-command.js';

/** What the gate's flags say, checked as far as it can be before anything is measured. */
export interface GateOptions {
  readonly conditions: readonly GateCondition[];
  readonly baseline: StoredBaseline | null;
  readonly baselineCommand: BaselineCommand | null;
  readonly saveBaseline: string | null;
  readonly allowOtherMachine: boolean;
  readonly rounds: RoundLimits;
}

export interface StoredBaseline {
  readonly file: string;
  readonly report: BenchReport;
}

export interface BaselineCommand {
  /** As written. */
  readonly text: string;
  readonly file: string;
  readonly args: readonly string[];
}

export interface RoundLimits {
  readonly timeBudgetMs: number;
  readonly min: number;
  readonly max: number;
}

/** Values of BENCH_GATE_FLAGS, and of BENCH_ROUNDS_FLAGS where the command has them. */
export interface GateValues {
  readonly 'fail-if'?: readonly string[] | undefined;
  readonly baseline?: string | undefined;
  readonly 'save-baseline'?: string | undefined;
  readonly 'allow-other-machine'?: boolean | undefined;
  readonly 'baseline-command'?: string | undefined;
  readonly 'time-budget'?: string | undefined;
  readonly 'min-rounds'?: number | undefined;
  readonly 'max-rounds'?: number | undefined;
}

const DURATION_UNITS = { ms: 1, s: 1e3, sec: 1e3, m: 60e3, min: 60e3, h: 3600e3 };

/**
 * Reads conditions, baseline and limits, and refuses what cannot be decided.
 * @param kind of the command
 * @throws UserError `usage`, `report_not_found` or `invalid_config`
 */
export function parseGate(values: GateValues, kind: BenchKind): GateOptions {
  const conditions = (values['fail-if'] ?? []).map((text) => parseGateCondition(text));
  for (const condition of conditions) requireMeasured(condition, kind);
  const { baseline: file, 'baseline-command': command, 'save-baseline': saveBaseline } = values;
  if (file !== undefined && command !== undefined) {
    throw usage('--baseline-command', 'Expected --baseline or --baseline-command but received both.', [
      'Compare with a stored report, or with another build, in two runs.',
    ]);
  }
  const options: GateOptions = {
    conditions,
    baseline: file === undefined ? null : { file, report: readBaseline(file, kind) },
    baselineCommand: command === undefined ? null : splitCommand(command),
    saveBaseline: saveBaseline ?? null,
    allowOtherMachine: values['allow-other-machine'] ?? false,
    rounds: parseLimits(values),
  };
  requireConditions(options);
  for (const condition of conditions) checkCondition(condition, options);
  return options;
}

/**
 * Refuses a run of which the gate could say nothing; to be called as soon as the names of the scenarios are known.
 * @param leftOut figures that a scenario will not have
 * @throws UserError `usage`
 */
export function checkScenarios(
  options: GateOptions,
  names: readonly string[],
  leftOut: (name: string) => readonly LeftOut[] = () => [],
): void {
  for (const condition of options.conditions) {
    const { filter, text, isRelative, metric } = condition;
    const matching = names.filter((name) => filter?.matches(name) ?? true);
    if (matching.length === 0) {
      throw usage('--fail-if', `No scenario of this run matches ${JSON.stringify(text)}.`, [
        `Scenarios: ${names.join('; ')}.`,
      ]);
    }
    const measured = matching.filter(
      (name) => !leftOut(name).some(({ metrics }) => metrics.includes(metric.id)),
    );
    if (measured.length === 0) refuseLeftOut([condition], matching.flatMap(leftOut));
    if (!isRelative || options.baseline === null) continue;
    const { report, file } = options.baseline;
    const known = report.scenarios.filter(({ metrics }) => metrics.some(({ id }) => id === metric.id));
    const missing = measured.find((name) => !known.some((scenario) => scenario.name === name));
    if (missing === undefined) continue;
    throw usage(
      '--baseline',
      `The baseline ${JSON.stringify(file)} has no ${metric.id} of the scenario ${JSON.stringify(missing)}, which ${JSON.stringify(text)} compares.`,
      [
        `It has: ${known.map(({ name }) => name).join('; ')}.`,
        'Measure the same combinations, write the baseline again, or name a scenario: metric[words] < -5%.',
      ],
    );
  }
}

/** What a command never measures it could never decide about. */
function requireMeasured({ text, metric }: GateCondition, kind: BenchKind): void {
  if (metric.kinds.includes(kind)) return;
  const commands = metric.kinds.map((other) => BENCH_COMMANDS[other]);
  throw usage(
    '--fail-if',
    `${BENCH_COMMANDS[kind]} does not measure ${metric.id}, which ${JSON.stringify(text)} is about.`,
    [`${metric.id} is measured by ${commands.join(' and ')}.`],
  );
}

/** What to say at once where every figure will have one sample; null: every condition can be decided. */
export function describeSingleSample({ conditions }: GateOptions, flag: string): string | null {
  const noisy = conditions.filter(({ metric }) => metric.noisy);
  if (noisy.length === 0) return null;
  const texts = noisy.map(({ text }) => JSON.stringify(text)).join(', ');
  return `One repetition says nothing about noise, so ${texts} will be inconclusive: give ${flag} 5 or more.`;
}

/** A reference that nothing is held against would look like a check that passes. */
function requireConditions({ conditions, baseline, baselineCommand, rounds }: GateOptions): void {
  const flag = baselineCommand !== null ? '--baseline-command' : '--baseline';
  if ((baseline !== null || baselineCommand !== null) && !conditions.some(({ isRelative }) => isRelative)) {
    throw usage(flag, `Expected a --fail-if with a change that ${flag} decides about.`, [
      "Add for example --fail-if 'decode < -5%'.",
    ]);
  }
  if (baselineCommand !== null && rounds.timeBudgetMs === 0) {
    throw usage('--time-budget', 'Expected --time-budget to be more than 0 with --baseline-command.', [
      'Give it the time that both builds may take together, e.g. 2m.',
    ]);
  }
}

/** Before the scenarios of this run are known: metric and filter have to occur in the baseline. */
function checkCondition(condition: GateCondition, options: GateOptions): void {
  const { text, metric, filter, isRelative } = condition;
  if (!isRelative) return;
  if (options.baseline === null && options.baselineCommand === null) {
    throw usage('--fail-if', `Expected a baseline for the change in ${JSON.stringify(text)}.`, [
      'Give --baseline FILE, written by --save-baseline, or a limit without sign and per cent.',
    ]);
  }
  if (options.baseline === null) return;
  const { report, file } = options.baseline;
  const known = report.scenarios.filter(({ name }) => filter?.matches(name) ?? true);
  if (known.some(({ metrics }) => metrics.some(({ id }) => id === metric.id))) return;
  const [where, what] =
    known.length === 0
      ? ['scenario', `It has: ${report.scenarios.map(({ name }) => name).join('; ')}.`]
      : [
          metric.id,
          `It has: ${[...new Set(known.flatMap(({ metrics }) => metrics.map(({ id }) => id)))].join(', ')}.`,
        ];
  throw usage(
    '--baseline',
    `The baseline ${JSON.stringify(file)} has no ${where} for ${JSON.stringify(text)}.`,
    [what],
  );
}

function parseLimits(values: GateValues): RoundLimits {
  const budget = values['time-budget'] ?? '0s';
  const timeBudgetMs = parseQuantity(budget.trim(), DURATION_UNITS);
  if (timeBudgetMs === undefined || timeBudgetMs < 0) {
    throw usage(
      '--time-budget',
      `Expected --time-budget to be a duration like 90s or 2m but received ${JSON.stringify(budget)}.`,
      ['Give --time-budget a number with ms, s, m or h.'],
    );
  }
  const { 'min-rounds': min = 1, 'max-rounds': max = Math.max(1, min) } = values;
  if (min > max) {
    throw usage(
      '--min-rounds',
      `Expected --min-rounds to be at most --max-rounds (${max}) but received ${min}.`,
      ['Give --max-rounds a larger number.'],
    );
  }
  return { timeBudgetMs, min, max };
}

function usage(param: string, message: string, suggestions: readonly string[]): UserError {
  return new UserError('usage', message, { param, suggestions });
}
