import { counted } from '../../counted.js';
import type { BenchProgress } from '../../cli/bench-progress.js';
import { compareCommands, type ComparedBuilds } from '../gate/compare-commands.js';
import { mergeGates } from '../gate/evaluate.js';
import { refuseLeftOut } from '../gate/left-out.js';
import { checkScenarios, type GateOptions } from '../gate/options.js';
import type { BenchReport } from '../report.js';
import { expandCases } from './cases.js';
import { checkStoredLaunches, repeatLaunches, splitConditions } from './launches.js';
import { leftOutOfCases, leftOutOfScenario } from './left-out.js';
import type { SpeedOptions } from './options.js';
import { planSpeed } from './plan.js';
import { createRepeater } from './repeat.js';
import { measureSpeed, type SpeedObserver } from './run.js';
import { scenarioName, scenarioParameters } from './scenario.js';

/** Where progress about launches beyond the first is shown. */
const LAUNCHES = 'launches';
const SILENT: SpeedObserver = {
  planned: () => undefined,
  begin: () => undefined,
  update: () => undefined,
  end: () => undefined,
};

/** Who is told, and who may end it. */
export interface SpeedWatch {
  readonly progress: BenchProgress;
  readonly signal: AbortSignal;
}

/**
 * Measures this build, longer while the gate is undecided; the report has the verdict unless it is partial.
 * @throws what measureSpeed throws; UserError `usage` for a baseline that cannot decide
 */
export async function measureAndDecide(
  options: SpeedOptions,
  gate: GateOptions,
  { progress, signal }: SpeedWatch,
): Promise<BenchReport> {
  const expected = expandCases(options);
  refuseLeftOut(gate.conditions, leftOutOfCases(expected, false));
  const { ofLaunches, ofRounds } = splitConditions(gate);
  checkStoredLaunches(ofLaunches);
  const mayRelaunch = ofLaunches.conditions.length > 0;
  const repeater = createRepeater(ofRounds, options.repetitions);
  const observer = {
    ...progress,
    planned: (models: readonly string[], scenarios: readonly string[]): void => {
      checkScenarios(gate, scenarios, (name) => leftOutOfScenario(name, expected, false));
      progress.planned([...models, ...(mayRelaunch ? [LAUNCHES] : [])]);
    },
    wantsMore: (report: BenchReport, rounds: number): boolean => repeater.wantsMore(report, rounds),
  };
  const first = await measureSpeed(options, observer, signal);
  if (first.partial) return first;
  if (mayRelaunch) progress.begin(LAUNCHES);
  const { report, result } = await repeatLaunches(first, ofLaunches, {
    again: (launches) => {
      const say = (name: string, message: string): void =>
        progress.update(LAUNCHES, `${launches + 1}: ${name} ${message}`);
      return measureSpeed(options, { ...SILENT, update: say }, signal);
    },
  });
  if (mayRelaunch) progress.end(LAUNCHES);
  return report.partial ? report : { ...report, gate: mergeGates([repeater.decide(report), result]) };
}

/**
 * Measures this build and another one in turns; see compareCommands.
 * @throws what planning and compareCommands throw
 */
export async function compareAndDecide(
  options: SpeedOptions,
  builds: ComparedBuilds,
  { gate, progress, signal }: SpeedWatch & { readonly gate: GateOptions },
): Promise<BenchReport> {
  refuseLeftOut(gate.conditions, leftOutOfCases(expandCases(options), true));
  const { models, cases, warnings } = await planSpeed(options);
  const plan = new Map(
    models.flatMap((model) =>
      cases.map((what) => [
        scenarioName(model, what),
        { parameters: scenarioParameters(model, what), threads: model.threads },
      ]),
    ),
  );
  checkScenarios(gate, [...plan.keys()], (name) => leftOutOfScenario(name, cases, true));
  const name = `beside ${builds.baseline.text}`;
  progress.planned([name]);
  progress.begin(name);
  const report = await compareCommands(builds, {
    gate,
    plan,
    warnings,
    signal,
    onProgress: ({ scenario, pairs, open }) =>
      progress.update(
        name,
        `${scenario}: ${counted(pairs, 'pair', 'pairs')} of rounds, ${counted(open, 'scenario')} open`,
      ),
  });
  progress.end(name);
  return report;
}
