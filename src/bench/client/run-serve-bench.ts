import { setMaxListeners } from 'node:events';
import path from 'node:path';
import { checkWritable, makeFolder, writeFileWhole } from '../../cli/write-file.js';
import { counted } from '../../counted.js';
import { FdqError, UserError } from '../../errors.js';
import { describeEnvironment } from '../environment.js';
import { BENCH_SCHEMA, type BenchReport } from '../report.js';
import type { LoadFigures } from './figures.js';
import { MAX_LAG_MS } from './loop-lag.js';
import type { ServeBenchOptions } from './options.js';
import { poolFigures } from './pool-figures.js';
import type { Failure } from './record.js';
import { ServeBench, type OpenOptions } from './serve-bench.js';
import type { LoadScenario } from './serve-setup.js';
import { toScenario } from './to-scenario.js';
import { documentFileName, toDocument, type DocumentHead } from './vllm-document.js';

export interface RunOptions extends OpenOptions {
  /** Called with the names of all scenarios before any is measured; what it throws ends the run. */
  readonly checkScenarios?: (names: readonly string[]) => void;
  /** Hears of a document that could not be written; the report is there all the same. */
  readonly unsaved: (error: FdqError) => void;
}

interface Measured {
  readonly scenario: LoadScenario;
  readonly runs: LoadFigures[];
}

/**
 * Runs a load test. When the signal is aborted, what was measured until then is the report.
 * @throws UserError `usage`, `invalid_dataset`, `server_unreachable`, `requests_failed` where nothing succeeded, `aborted`
 * where nothing was measured
 */
export async function runServeBench(options: ServeBenchOptions, run: RunOptions): Promise<BenchReport> {
  // Every request under way listens.
  setMaxListeners(0, run.signal);
  checkDocuments(options);
  const bench = await ServeBench.open(options, run);
  try {
    const environment = await describeEnvironment(bench.runtime);
    run.checkScenarios?.(bench.scenarios.map(({ name }) => name));
    await bench.warmUp();
    const measured = await measureAll(bench, options, run);
    const withRuns = measured.filter(({ runs }) => runs.length > 0);
    if (withRuns.length === 0) run.signal.throwIfAborted();
    const { percentiles } = options.document;
    saveDocuments(withRuns, bench.model.id, { options, unsaved: run.unsaved });
    return {
      schema: BENCH_SCHEMA,
      kind: 'serve',
      environment,
      scenarios: withRuns.map(({ scenario, runs }) =>
        toScenario(scenario.name, scenario.parameters, { runs, percentiles }),
      ),
      warnings: withRuns.flatMap(warningsOf),
      partial: run.signal.aborted,
      gate: null,
    };
  } finally {
    await bench.close();
  }
}

/** Repetitions are the outer loop, so that slow changes of the machine touch all scenarios alike. */
async function measureAll(
  bench: ServeBench,
  { repetitions }: ServeBenchOptions,
  { ui, signal }: RunOptions,
): Promise<readonly Measured[]> {
  const measured: readonly Measured[] = bench.scenarios.map((scenario) => ({ scenario, runs: [] }));
  ui.step('measure', 'start');
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const { scenario, runs } of measured) {
      if (signal.aborted) return measured;
      const figures = await bench.measure(scenario);
      if (figures.completed + figures.failed > 0) runs.push(figures);
      if (measured.every((one) => one.runs.every(({ completed }) => completed === 0))) {
        failIfAllFailed(figures);
      }
    }
  }
  ui.step('measure', 'done', counted(measured.length, 'scenario'));
  return measured;
}

function failIfAllFailed({ failures }: LoadFigures): void {
  const [first] = failures;
  if (first === undefined) return;
  throw new UserError(
    'requests_failed',
    `${failures.length === 1 ? 'The only request' : `All ${failures.length} requests`} failed: ${countKinds(failures)}. The first: ${first.message}`,
    {
      param: 'url',
      suggestions: ['Check --endpoint, --served-model-name and the flags that go into requests.'],
    },
  );
}

/** `10 x status 503, 2 x reset`, most frequent first. */
function countKinds(failures: readonly Failure[]): string {
  const counts = new Map<string, number>();
  for (const { kind } of failures) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([kind, count]) => `${count} x ${kind}`)
    .join(', ');
}

function warningsOf({ scenario, runs }: Measured): readonly string[] {
  const { failures, completed, failed, lagMs, tokenSources, aborted } = poolFigures(runs);
  const warnings: string[] = [];
  const [first] = failures;
  if (first !== undefined) {
    const total = completed + failed;
    warnings.push(
      `${failed} of ${counted(total, 'request')} failed: ${countKinds(failures)}. The first: ${first.message}`,
    );
  }
  if (aborted > 0)
    warnings.push(
      `${counted(aborted, 'request was', 'requests were')} ended by the interruption and ${aborted === 1 ? 'does' : 'do'} not count.`,
    );
  if (tokenSources.has('chunks')) {
    warnings.push(
      'The server sends no usage, so every chunk counts as one token; give --tokenizer <folder> to count tokens.',
    );
  }
  if (lagMs > MAX_LAG_MS) {
    const lag = lagMs.toFixed(0);
    warnings.push(`The client itself was late by ${lag} ms (p99 of its event loop): latencies include that.`);
  }
  return warnings.map((line) => `${scenario.name}: ${line}`);
}

/** A place that takes no document is refused before a server is started. */
function checkDocuments({ document: { isSaved, folder, fileName } }: ServeBenchOptions): void {
  if (!isSaved) return;
  // A file name that is absolute is the place, as with vLLM.
  makeFolder(path.dirname(path.resolve(folder, fileName ?? 'any.json')), '--result-dir');
  if (fileName !== undefined) checkWritable(path.resolve(folder, fileName), '--result-filename');
}

function saveDocuments(
  measured: readonly Measured[],
  modelId: string,
  { options, unsaved }: Pick<RunOptions, 'unsaved'> & { readonly options: ServeBenchOptions },
): void {
  const { document, dataset, requestRate, burstiness, backend, tokenizer } = options;
  if (!document.isSaved) return;
  const date = new Date();
  for (const { scenario, runs } of measured) {
    const { maxConcurrency } = scenario;
    const head: DocumentHead = {
      date,
      backend,
      label: document.label,
      modelId,
      tokenizerId: tokenizer ?? modelId,
      numPrompts: dataset.numPrompts,
      requestRate,
      burstiness,
      maxConcurrency: maxConcurrency === Infinity ? null : maxConcurrency,
      metadata: document.metadata,
    };
    const file = path.resolve(document.folder, document.fileName ?? documentFileName(head));
    try {
      writeFileWhole(file, `${JSON.stringify(toDocument(poolFigures(runs), head, document))}\n`);
    } catch (error) {
      if (!(error instanceof FdqError)) throw error;
      unsaved(error);
    }
  }
}
