import { create } from 'xmlbuilder2';
import { printable, printableLine } from '../../cli/render.js';
import type { BenchReport, GateCheck, Metric, Scenario } from '../report.js';
import {
  describeEnvironment,
  describeParameters,
  formatInterval,
  formatMetric,
  metricIds,
  metricInfo,
  reportTitle,
  unitLabel,
} from './format.js';

/**
 * JUnit's XML as Jenkins, GitLab and GitHub's readers of it take it: a test suite for each scenario, a test case for
 * each figure. A failed condition is a failure. An inconclusive one is skipped, with the reason: a figure that was not
 * decided is neither right nor wrong, and the exit code says what becomes of the job.
 */
export function renderJunit(report: BenchReport): string {
  const suites = toSuites(report);
  const root = create({ version: '1.0', encoding: 'UTF-8', invalidCharReplacement: '\ufffd' }).ele(
    'testsuites',
    {
      name: reportTitle(report),
      ...countCases(suites.flatMap(({ cases }) => cases)),
    },
  );
  for (const { name, cases, parameters } of suites) {
    const suite = root.ele('testsuite', {
      name: printableLine(name),
      ...countCases(cases),
      timestamp: report.environment.date,
    });
    const properties = suite.ele('properties');
    for (const [key, value] of [
      ...describeParameters(parameters),
      ...describeEnvironment(report.environment),
    ]) {
      properties.ele('property', { name: printableLine(key), value: printableLine(value) });
    }
    for (const each of cases) addCase(suite, name, each);
  }
  return `${root.end({ prettyPrint: true })}\n`;
}

interface Case {
  readonly id: string;
  /** Absent where the scenario lacks the figure that a condition names. */
  readonly metric: Metric | undefined;
  readonly checks: readonly GateCheck[];
}

interface Suite {
  readonly name: string;
  readonly cases: readonly Case[];
  readonly parameters: Scenario['parameters'];
}

/** Scenarios in their order, then those that only checks name. */
function toSuites({ scenarios, gate }: BenchReport): readonly Suite[] {
  const checks = gate?.checks ?? [];
  const names = new Set([...scenarios.map(({ name }) => name), ...checks.map(({ scenario }) => scenario)]);
  return [...names].map((name) => {
    const scenario = scenarios.find((each) => each.name === name);
    const own = checks.filter((check) => check.scenario === name);
    const measured = scenario === undefined ? [] : metricIds([scenario]);
    const ids = new Set([...measured, ...own.map(({ metric }) => metric)]);
    const cases = [...ids].map((id) => ({
      id,
      metric: scenario?.metrics.find((metric) => metric.id === id),
      checks: own.filter((check) => check.metric === id),
    }));
    return { name, cases, parameters: scenario?.parameters ?? {} };
  });
}

function verdictOf({ checks }: Case): 'fail' | 'inconclusive' | 'pass' {
  if (checks.some(({ verdict }) => verdict === 'fail')) return 'fail';
  return checks.some(({ verdict }) => verdict === 'inconclusive') ? 'inconclusive' : 'pass';
}

function countCases(cases: readonly Case[]): Readonly<Record<string, number>> {
  return {
    tests: cases.length,
    failures: cases.filter((each) => verdictOf(each) === 'fail').length,
    errors: 0,
    skipped: cases.filter((each) => verdictOf(each) === 'inconclusive').length,
  };
}

type Element = ReturnType<ReturnType<typeof create>['ele']>;

function addCase(suite: Element, scenario: string, each: Case): void {
  const element = suite.ele('testcase', { classname: printableLine(scenario), name: printableLine(each.id) });
  const verdict = verdictOf(each);
  if (verdict !== 'pass') {
    const lines = each.checks
      .filter((check) => check.verdict === verdict)
      .map(({ condition, reason }) => printable(`${condition}: ${reason}`));
    const tag = verdict === 'fail' ? 'failure' : 'skipped';
    const type = verdict === 'fail' ? { type: 'threshold' } : {};
    element.ele(tag, { message: lines.join(' '), ...type }).txt(lines.join('\n'));
  }
  if (each.metric !== undefined) element.ele('system-out').txt(describeMetric(each.metric));
}

function describeMetric(metric: Metric): string {
  const { title, unit } = metricInfo(metric.id);
  const figure = `${title}: ${formatMetric(metric)} ${unitLabel(unit)}`.trimEnd();
  if (metric.samples.length < 2) return figure;
  return `${figure}\n95 % interval: ${formatInterval(metric)}\nSamples: ${metric.samples.join(' ')}`;
}
