import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';
import { ALPHA, evaluateGate, judge, type Evidence } from '../gate/evaluate.js';
import type { GateCondition } from '../gate/conditions.js';
import { OpenLooks } from '../gate/look-schedule.js';
import type { GateOptions } from '../gate/options.js';
import type { BenchReport, GateResult, Metric } from '../report.js';
import { toMetric } from '../summarize.js';

/** Before the first look: what ranks need on either side. */
const LEAST_LAUNCHES = 5;

/** Figures of which a launch of a model gives one, however often its scenarios are repeated. */
function isOfLaunch(id: string): boolean {
  return id === 'peak_rss' || id === 'load' || id.startsWith('load_');
}

/** Conditions about launches, and those about repetitions. */
export function splitConditions(gate: GateOptions): {
  readonly ofLaunches: GateOptions;
  readonly ofRounds: GateOptions;
} {
  const pick = (wanted: boolean): readonly GateCondition[] =>
    gate.conditions.filter(({ metric }) => isOfLaunch(metric.id) === wanted);
  return { ofLaunches: { ...gate, conditions: pick(true) }, ofRounds: { ...gate, conditions: pick(false) } };
}

/**
 * A baseline with one launch could never be told from another launch.
 * @throws UserError `usage`
 */
export function checkStoredLaunches({ conditions, baseline }: GateOptions): void {
  if (baseline === null) return;
  for (const { text, metric, filter, isRelative } of conditions) {
    const figures = baseline.report.scenarios
      .filter(({ name }) => filter?.matches(name) ?? true)
      .flatMap(({ metrics }) => metrics.filter(({ id }) => id === metric.id));
    const least = Math.min(...figures.map(({ samples }) => samples.length));
    if (!isRelative || least >= LEAST_LAUNCHES) continue;
    throw new UserError(
      'usage',
      `The baseline ${JSON.stringify(baseline.file)} has ${metric.id} of ${counted(least, 'launch', 'launches')}, and ${JSON.stringify(text)} needs ${LEAST_LAUNCHES}.`,
      {
        param: '--baseline',
        suggestions: [
          `Write it with a condition about ${metric.id}, which launches a model again and again: --fail-if '${metric.id} > 1e15'.`,
        ],
      },
    );
  }
}

export interface LaunchOptions {
  /** Measures everything once more, in new processes. */
  readonly again: (launches: number) => Promise<BenchReport>;
  /** Monotonic milliseconds. */
  readonly clock?: () => number;
}

/**
 * Launches the models again until the gate can tell, at least five times in all, or until the time budget ends.
 * @param first report of the first launch
 * @param gate its conditions are about launches
 * @returns the report with a sample for each launch, and the verdict of these conditions
 */
export async function repeatLaunches(
  first: BenchReport,
  gate: GateOptions,
  { again, clock = (): number => performance.now() }: LaunchOptions,
): Promise<{ readonly report: BenchReport; readonly result: GateResult | null }> {
  const looks = new OpenLooks();
  const evidence: Evidence = { alphaOf: () => looks.alpha(ALPHA) };
  const deadline = clock() + gate.rounds.timeBudgetMs;
  let report = first;
  let launches = 1;
  while (gate.conditions.length > 0 && clock() < deadline) {
    if (looks.isDue(launches, LEAST_LAUNCHES)) {
      looks.take(launches);
      if (!judge(report, gate, evidence).some(({ isOpen }) => isOpen)) break;
    }
    const next = await again(launches);
    if (next.partial) return { report: { ...report, partial: true }, result: null };
    report = addLaunch(report, next);
    launches++;
  }
  looks.take(launches);
  return { report, result: evaluateGate(report, gate, evidence) };
}

function addLaunch(report: BenchReport, next: BenchReport): BenchReport {
  const add = (metric: Metric, name: string): Metric => {
    const more = next.scenarios
      .find((scenario) => scenario.name === name)
      ?.metrics.find(({ id }) => id === metric.id);
    return isOfLaunch(metric.id) && more !== undefined
      ? toMetric(metric.id, [...metric.samples, ...more.samples])
      : metric;
  };
  return {
    ...report,
    scenarios: report.scenarios.map((scenario) => ({
      ...scenario,
      metrics: scenario.metrics.map((metric) => add(metric, scenario.name)),
    })),
  };
}
