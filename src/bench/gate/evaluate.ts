import { median } from 'simple-statistics';
import { counted } from '../../counted.js';
import { studentT } from '../summarize.js';
import type {
  BenchReport,
  Environment,
  GateCheck,
  GateResult,
  Metric,
  Scenario,
  Verdict,
} from '../report.js';
import { holds, type GateCondition } from './conditions.js';
import type { GateOptions, StoredBaseline } from './options.js';
import { describeFewSamples, type FewSamples } from './few-samples.js';
import type { Look } from './look-schedule.js';
import { findLaunches, type PairedLaunch, type PairedRounds } from './paired-rounds.js';
import { pairedShift, rankSumShift, type Estimate } from './statistics.js';

/** A check, and whether more rounds could decide it. */
export interface Judgement {
  readonly check: GateCheck;
  readonly isOpen: boolean;
}

/** How often an interval may miss, over all looks at it. */
export const ALPHA = 0.05;
const NOT_POSITIVE = 'Only positive figures have a relative change with an interval.';

/** What the gate knows besides the report. */
export interface Evidence {
  /** Of --baseline-command. */
  readonly paired?: PairedRounds;
  /** How often intervals of a scenario may miss; default: 5 %, as it is looked at this once. */
  readonly alphaOf?: (scenario: string) => number;
  /** Looks at a scenario that may still come; default: none. */
  readonly looksAhead?: (scenario: string) => readonly Look[];
}

/** The verdict about a report; null where no condition was given. */
export function evaluateGate(
  report: BenchReport,
  options: GateOptions,
  evidence: Evidence = {},
): GateResult | null {
  if (options.conditions.length === 0) return null;
  const checks = judge(report, options, evidence).map(({ check }) => check);
  return {
    verdict: worst(checks.map(({ verdict }) => verdict)),
    checks,
    baseline: options.baseline?.file ?? options.baselineCommand?.text ?? null,
  };
}

/** One verdict of several about the same report; null where there is none. */
export function mergeGates(results: readonly (GateResult | null)[]): GateResult | null {
  const given = results.filter((result) => result !== null);
  const [first] = given;
  if (first === undefined) return null;
  return {
    verdict: worst(given.map(({ verdict }) => verdict)),
    checks: given.flatMap(({ checks }) => checks),
    baseline: first.baseline,
  };
}

/** Every condition on every scenario that it is about. */
export function judge(
  report: BenchReport,
  options: GateOptions,
  { paired, alphaOf = (): number => ALPHA, looksAhead = (): readonly Look[] => [] }: Evidence = {},
): readonly Judgement[] {
  const otherMachine =
    options.baseline === null || options.allowOtherMachine
      ? null
      : describeOtherMachine(options.baseline.report.environment, report.environment);
  return options.conditions.flatMap((condition) => {
    const matching = report.scenarios.filter(({ name }) => condition.filter?.matches(name) ?? true);
    const measured = matching.filter((scenario) => findMetric(scenario, condition) !== undefined);
    if (measured.length === 0) return [missingMetric(condition, matching)];
    return measured.map((scenario) =>
      judgeScenario(condition, scenario, {
        options,
        paired,
        alpha: alphaOf(scenario.name),
        ahead: looksAhead(scenario.name),
        otherMachine,
      }),
    );
  });
}

/** Warnings about the baseline that belong into the report. */
export function gateWarnings(report: BenchReport, options: GateOptions): readonly string[] {
  if (options.baseline === null) return [];
  const difference = describeOtherMachine(options.baseline.report.environment, report.environment);
  if (difference === null) return [];
  const consequence = options.allowOtherMachine
    ? 'its speeds are compared all the same'
    : 'changes of speed are inconclusive without --allow-other-machine';
  return [`The baseline ${options.baseline.file} is of another machine (${difference}): ${consequence}.`];
}

interface Context {
  readonly options: GateOptions;
  readonly paired: PairedRounds | undefined;
  readonly alpha: number;
  readonly ahead: readonly Look[];
  readonly otherMachine: string | null;
}

function judgeScenario(condition: GateCondition, scenario: Scenario, context: Context): Judgement {
  const metric = findMetric(scenario, condition) as Metric;
  if (!condition.isRelative) return judgeAbsolute(condition, scenario, { metric, alpha: context.alpha });
  if (context.paired !== undefined) return judgePaired(condition, scenario, { ...context, metric });
  return judgeStored(condition, scenario, { ...context, metric });
}

function judgeAbsolute(
  condition: GateCondition,
  scenario: Scenario,
  { metric, alpha }: { readonly metric: Metric; readonly alpha: number },
): Judgement {
  const { value, samples } = metric;
  if (!condition.metric.noisy) {
    const verdict = holds(condition.operator, value, condition.limit) ? 'fail' : 'pass';
    return judgement(condition, scenario, {
      verdict,
      value,
      reason: `${number(value)} ${isOrNot(verdict, condition)}.`,
    });
  }
  const interval = alpha === ALPHA ? metric.interval : meanInterval(metric, alpha);
  if (interval === null) {
    return judgement(condition, scenario, {
      verdict: 'inconclusive',
      value,
      isOpen: true,
      reason: `${number(value)} was measured once, which says nothing about its noise: repeat it.`,
    });
  }
  const verdict = judgeInterval(condition, interval);
  return judgement(condition, scenario, {
    verdict,
    value,
    isOpen: verdict === 'inconclusive',
    reason: `${number(value)} (95% interval ${number(interval[0])} to ${number(interval[1])}, ${counted(samples.length, 'sample')}): ${share(verdict, condition)}.`,
  });
}

function judgeStored(
  condition: GateCondition,
  scenario: Scenario,
  { metric, options, alpha, ahead, otherMachine }: Context & { readonly metric: Metric },
): Judgement {
  const stored = options.baseline as StoredBaseline;
  const before = stored.report.scenarios.find(({ name }) => name === scenario.name);
  const reference = before === undefined ? undefined : findMetric(before, condition);
  const value = comparedValue(metric, condition);
  if (reference === undefined) {
    const reason = `The baseline has no ${condition.metric.id} of this scenario.`;
    return judgement(condition, scenario, { verdict: 'inconclusive', value, reason });
  }
  const baselineValue = comparedValue(reference, condition);
  if (!condition.metric.noisy) return judgeExactChange(condition, scenario, { value, baselineValue });
  if (![...metric.samples, ...reference.samples].every((sample) => sample > 0)) {
    return judgement(condition, scenario, {
      verdict: 'inconclusive',
      value,
      baselineValue,
      reason: NOT_POSITIVE,
    });
  }
  const estimate = toChange(
    rankSumShift(metric.samples.map(Math.log), reference.samples.map(Math.log), alpha),
  );
  const [here, there] = [metric.samples.length, reference.samples.length];
  const samples = `${counted(here, 'sample')} against ${there}`;
  const few = isKnown(estimate) ? undefined : describeFewSamples(there, { rounds: here, alpha }, ahead);
  const result = judgeChange(condition, scenario, { estimate, value, baselineValue, samples, few });
  if (otherMachine === null) return result;
  const reason = `The baseline is of another machine (${otherMachine}): ${result.check.reason}`;
  return { check: { ...result.check, verdict: 'inconclusive', reason }, isOpen: false };
}

/** A change of noisy figures is that of their middle, not of means that one wild repetition moves. */
function comparedValue({ value, samples }: Metric, { metric }: GateCondition): number {
  return metric.noisy ? median([...samples]) : value;
}

function judgePaired(
  condition: GateCondition,
  scenario: Scenario,
  { paired, metric, alpha }: Context & { readonly metric: Metric },
): Judgement {
  const launches = findLaunches(paired, scenario.name, metric.id);
  if (launches.length === 0) {
    const reason = `The other build does not measure ${metric.id} in rounds.`;
    return judgement(condition, scenario, { verdict: 'inconclusive', value: metric.value, reason });
  }
  if (!condition.metric.noisy) {
    const [value = NaN] = launches.flatMap(({ now }) => now);
    const [baselineValue = NaN] = launches.flatMap(({ baseline }) => baseline);
    return judgeExactChange(condition, scenario, { value, baselineValue });
  }
  if (!launches.flatMap(({ now, baseline }) => [...now, ...baseline]).every((sample) => sample > 0)) {
    return judgement(condition, scenario, {
      verdict: 'inconclusive',
      value: metric.value,
      reason: NOT_POSITIVE,
    });
  }
  const estimate = toChange(pairedShift(launches.map(logRatios), alpha));
  const pairs = launches.reduce((sum, { now }) => sum + now.length, 0);
  return judgeChange(condition, scenario, {
    estimate,
    value: median(launches.flatMap(({ now }) => now)),
    baselineValue: median(launches.flatMap(({ baseline }) => baseline)),
    samples: `${counted(pairs, 'pair')} of rounds in ${counted(launches.length, 'launch', 'launches')}`,
  });
}

function judgeExactChange(
  condition: GateCondition,
  scenario: Scenario,
  { value, baselineValue }: { readonly value: number; readonly baselineValue: number },
): Judgement {
  const change = relativeChange(value, baselineValue);
  const verdict = holds(condition.operator, change, condition.limit) ? 'fail' : 'pass';
  const reason = `Change ${percent(change)} ${isOrNot(verdict, condition)}.`;
  return judgement(condition, scenario, { verdict, value, baselineValue, change, reason });
}

interface Compared {
  readonly estimate: Estimate;
  readonly value: number;
  readonly baselineValue: number;
  readonly samples: string;
  /** Of an interval that is not known. */
  readonly few?: FewSamples | undefined;
}

/** Whether there were samples enough for an interval. */
function isKnown({ interval: [low, high] }: Estimate): boolean {
  return low > -1 && Number.isFinite(high);
}

function judgeChange(
  condition: GateCondition,
  scenario: Scenario,
  { estimate, value, baselineValue, samples, few }: Compared,
): Judgement {
  const [low, high] = estimate.interval;
  const verdict = judgeInterval(condition, estimate.interval);
  const reason = isKnown(estimate)
    ? `Change ${percent(estimate.value)} (95% interval ${percent(low)} to ${percent(high)}, ${samples}): ${share(verdict, condition)}.`
    : `Change ${percent(estimate.value)} of ${samples}, too few for a 95% interval${few === undefined ? '' : `: ${few.reason}`}.`;
  return judgement(condition, scenario, {
    verdict,
    value,
    baselineValue,
    change: estimate.value,
    changeInterval: isKnown(estimate) ? estimate.interval : null,
    isOpen: verdict === 'inconclusive' && few?.isOpen !== false,
    reason,
  });
}

/** A condition is a half line: it holds for a whole interval when it holds for both ends. */
function judgeInterval({ operator, limit }: GateCondition, [low, high]: Estimate['interval']): Verdict {
  const holdsLow = holds(operator, low, limit);
  if (holdsLow !== holds(operator, high, limit)) return 'inconclusive';
  return holdsLow ? 'fail' : 'pass';
}

function missingMetric(condition: GateCondition, matching: readonly Scenario[]): Judgement {
  const reason =
    matching.length === 0
      ? 'No scenario that was measured matches.'
      : `${condition.metric.id} was not measured in ${counted(matching.length, 'scenario')}.`;
  const name = matching[0]?.name ?? condition.filter?.text ?? '*';
  return judgement(condition, { name }, { verdict: 'inconclusive', reason });
}

type Finding = Pick<GateCheck, 'verdict' | 'reason'> & Partial<GateCheck> & { readonly isOpen?: boolean };

function judgement(
  { text, metric }: GateCondition,
  { name }: Pick<Scenario, 'name'>,
  { isOpen = false, ...finding }: Finding,
): Judgement {
  return {
    isOpen,
    check: {
      condition: text,
      scenario: name,
      metric: metric.id,
      value: null,
      baselineValue: null,
      change: null,
      changeInterval: null,
      ...finding,
    },
  };
}

function findMetric({ metrics }: Scenario, { metric }: GateCondition): Metric | undefined {
  return metrics.find(({ id }) => id === metric.id);
}

function logRatios({ now, baseline }: PairedLaunch): readonly number[] {
  return now.map((value, i) => Math.log(value / (baseline[i] ?? NaN)));
}

function toChange({ value, interval: [low, high] }: Estimate): Estimate {
  return { value: Math.expm1(value), interval: [Math.expm1(low), Math.expm1(high)] };
}

function relativeChange(value: number, baseline: number): number {
  if (value === baseline) return 0;
  return (value - baseline) / Math.abs(baseline);
}

function meanInterval({ value, samples, std }: Metric, alpha: number): readonly [number, number] | null {
  if (samples.length < 2) return null;
  const half = (studentT(1 - alpha, samples.length - 1) * std) / Math.sqrt(samples.length);
  return [value - half, value + half];
}

/** What makes speeds of two machines differ; null: nothing that is recorded. */
function describeOtherMachine(before: Environment, now: Environment): string | null {
  const differences = (['platform', 'cpu', 'cores', 'isa'] as const)
    .filter((key) => before[key] !== now[key])
    .map((key) => `${key} ${String(before[key])}, here ${String(now[key])}`);
  return differences.length === 0 ? null : differences.join('; ');
}

function worst(verdicts: readonly Verdict[]): Verdict {
  return verdicts.find((one) => one === 'fail') ?? verdicts.find((one) => one === 'inconclusive') ?? 'pass';
}

function limitText({ operator, limit, isRelative }: GateCondition): string {
  return `${operator} ${isRelative ? percent(limit) : number(limit)}`;
}

function isOrNot(verdict: Verdict, condition: GateCondition): string {
  return `is ${verdict === 'fail' ? '' : 'not '}${limitText(condition)}`;
}

function share(verdict: Verdict, condition: GateCondition): string {
  const part = { fail: 'all', pass: 'nothing', inconclusive: 'only part' }[verdict];
  return `${part} of it is ${limitText(condition)}`;
}

function percent(share: number): string {
  return `${share < 0 ? '' : '+'}${(share * 100).toFixed(1)}%`;
}

function number(value: number): string {
  return String(Number(value.toPrecision(4)));
}
