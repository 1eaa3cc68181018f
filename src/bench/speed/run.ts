import { loadRuntime } from '../../runtime/load-addon.js';
import { describeEnvironment } from '../environment.js';
import { BENCH_SCHEMA, type BenchReport, type Scenario } from '../report.js';
import { caseName } from './cases.js';
import { startModelProcess, type ModelProcess, type ModelProcessOptions } from './model-process.js';
import type { SpeedCase, SpeedOptions } from './options.js';
import { planSpeed, type SpeedModel } from './plan.js';
import { scenarioName, toScenario, type CountedRound } from './scenario.js';

/** Read together by all threads: far more than any cache holds, little beside a model. */
const BANDWIDTH_BYTES = 256 * 1024 ** 2;
const LEAST_BYTES_A_THREAD = 16 * 1024 ** 2;

/** Told how measuring goes. */
export interface SpeedObserver {
  /** What will be measured, in this order; may throw. */
  planned(models: readonly string[], scenarios: readonly string[]): void;
  begin(name: string): void;
  update(name: string, message: string): void;
  end(name: string): void;
  /** Whether a scenario is to be repeated beyond what was asked for; `report` holds it alone. Default: never. */
  wantsMore?(report: BenchReport, rounds: number): boolean;
}

/** What touches the machine; replaced in tests. */
export interface SpeedMachine {
  start(options: ModelProcessOptions): Promise<ModelProcess>;
  /** Bytes a second. */
  readBandwidth(threads: number): Promise<number>;
}

const MACHINE: SpeedMachine = { start: startModelProcess, readBandwidth: measureReadBandwidth };

/**
 * Measures every combination. When `signal` is aborted, what was measured until then is the report.
 * @throws what planning and loading throw; UserError `runtime_failed`
 */
export async function measureSpeed(
  options: SpeedOptions,
  observer: SpeedObserver,
  signal: AbortSignal,
  machine: SpeedMachine = MACHINE,
): Promise<BenchReport> {
  const plan = await planSpeed(options);
  const { isa, onnxruntime, warnings } = plan;
  const environment = await describeEnvironment({ isa, onnxruntime });
  observer.planned(
    plan.models.map(({ name }) => name),
    plan.models.flatMap((model) => plan.cases.map((what) => scenarioName(model, what))),
  );
  const draft: BenchReport = {
    schema: BENCH_SCHEMA,
    kind: 'speed',
    environment,
    scenarios: [],
    warnings: [],
    partial: false,
    gate: null,
  };
  const scenarios: Scenario[] = [];
  try {
    for (const model of plan.models) {
      observer.begin(model.name);
      await measureModel({ model, options, observer, signal, machine, draft }, plan.cases, scenarios);
      observer.end(model.name);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return { ...draft, scenarios, warnings, partial: signal.aborted };
}

interface Run {
  readonly model: SpeedModel;
  readonly options: SpeedOptions;
  readonly observer: SpeedObserver;
  readonly signal: AbortSignal;
  readonly machine: SpeedMachine;
  /** A report without scenarios. */
  readonly draft: BenchReport;
}

/** Adds a scenario for each case, the last one with fewer repetitions when it is interrupted. */
async function measureModel(run: Run, cases: readonly SpeedCase[], scenarios: Scenario[]): Promise<void> {
  const { model, observer, signal, machine, draft } = run;
  observer.update(model.name, 'loading');
  const started = await machine.start({
    load: model.load,
    signal,
    onProgress: ({ doneBytes = 0, totalBytes = 1 }) =>
      observer.update(model.name, `loading, ${Math.floor((100 * doneBytes) / Math.max(1, totalBytes))} %`),
  });
  try {
    for (const what of cases) {
      const rounds: CountedRound[] = [];
      const describe = (): Scenario => toScenario(model, what, rounds, started.seconds);
      const isUndecided = (): boolean =>
        observer.wantsMore?.({ ...draft, scenarios: [describe()] }, rounds.length) ?? false;
      try {
        await measureCase(run, started, { what, rounds, isUndecided });
      } finally {
        if (rounds.length > 0) scenarios.push(describe());
      }
    }
  } finally {
    await started.close();
  }
}

interface Measurement {
  readonly what: SpeedCase;
  /** Filled. */
  readonly rounds: CountedRound[];
  readonly isUndecided: () => boolean;
}

async function measureCase(
  { model, options, observer, signal, machine }: Run,
  started: ModelProcess,
  { what, rounds, isUndecided }: Measurement,
): Promise<void> {
  const say = (progress: string): void => observer.update(model.name, `${caseName(what)}: ${progress}`);
  say('warm-up');
  await started.measure(what);
  let before = await machine.readBandwidth(model.threads);
  while (rounds.length < options.repetitions || isUndecided()) {
    signal.throwIfAborted();
    say(`${rounds.length + 1} of ${Math.max(rounds.length + 1, options.repetitions)}`);
    const round = await started.measure(what);
    const after = what.steps === 0 ? before : await machine.readBandwidth(model.threads);
    rounds.push({ ...round, readBandwidth: Math.max(before, after) });
    before = after;
  }
}

async function measureReadBandwidth(threads: number): Promise<number> {
  const bytes = Math.max(LEAST_BYTES_A_THREAD, Math.floor(BANDWIDTH_BYTES / threads));
  return loadRuntime().addon.measureReadBandwidth(threads, bytes);
}
