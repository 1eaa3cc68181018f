import type { BenchProgress } from '../../cli/bench-progress.js';
import { compareCommands, type ComparedBuilds } from '../gate/compare-commands.js';
import { checkScenarios, type GateOptions } from '../gate/options.js';
import type { BenchReport } from '../report.js';
import type { SpeedOptions } from './options.js';
import { planSpeed } from './plan.js';
import { createRepeater } from './repeat.js';
import { measureSpeed } from './run.js';
import { scenarioName, scenarioParameters } from './scenario.js';

/** Who is told, and who may end it. */
export interface SpeedWatch {
  readonly progress: BenchProgress;
  readonly signal: AbortSignal;
}

/** Measures this build, longer while the gate is undecided; the report has the verdict unless it is partial. */
export async function measureAndDecide(
  options: SpeedOptions,
  gate: GateOptions,
  { progress, signal }: SpeedWatch,
): Promise<BenchReport> {
  const repeater = createRepeater(gate, options.repetitions);
  const observer = {
    ...progress,
    planned: (models: readonly string[], scenarios: readonly string[]): void => {
      checkScenarios(gate, scenarios);
      progress.planned(models);
    },
    wantsMore: (report: BenchReport, rounds: number): boolean => repeater.wantsMore(report, rounds),
  };
  const report = await measureSpeed(options, observer, signal);
  return report.partial ? report : { ...report, gate: repeater.decide(report) };
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
  const { models, cases, warnings } = await planSpeed(options);
  const plan = new Map(
    models.flatMap((model) =>
      cases.map((what) => [
        scenarioName(model, what),
        { parameters: scenarioParameters(model, what), threads: model.threads },
      ]),
    ),
  );
  checkScenarios(gate, [...plan.keys()]);
  const name = `beside ${builds.baseline.text}`;
  progress.planned([name]);
  progress.begin(name);
  const report = await compareCommands(builds, {
    gate,
    plan,
    warnings,
    signal,
    onProgress: ({ scenario, pairs, open }) =>
      progress.update(name, `${scenario}: ${pairs} pairs of rounds, ${open} scenarios open`),
  });
  progress.end(name);
  return report;
}
