import path from 'node:path';
import process from 'node:process';
import type { ServeBenchOptions } from '../../bench/client/options.js';
import type { ServeBenchUi } from '../../bench/client/serve-bench.js';
import type { BenchOutput } from '../../bench/output.js';
import { BaseCommand } from '../../cli/base-command.js';
import { BENCH_SERVE_FLAGS, BENCHED_SERVER_FLAGS } from '../../cli/bench-serve-flags.js';
import { findUnknownVariables } from '../../cli/environment.js';
import { environmentName, toOclifFlags } from '../../cli/flag-row.js';
import type { Progress } from '../../cli/progress.js';
import type { PhaseName } from '../../cli/serve-ui.js';
import { printSettings, settingsAsJson, valuesOf, type Settings } from '../../cli/settings.js';
import { watchInterrupt } from '../../cli/signals.js';
import type { FdqError } from '../../errors.js';

/** Requests that `fdq serve` takes at a time unless it is told otherwise. */
const SERVER_CONCURRENCY = 512;

export default class BenchServe extends BaseCommand {
  static override readonly summary = 'Measure latencies and throughput of a server under load.';

  static override readonly description =
    'Sends requests to any server that speaks the OpenAI API, or to an fdq serve that it starts for --model on a free port and stops again. Flags and the document of --save-result are those of vllm bench serve; docs/bench.md says what is measured.\n\nExit codes: 0 done, 1 failed or no request succeeded, 2 wrong usage or configuration, 3 data set not found or wrong, 4 --fail-if holds, 5 too noisy to say, 70 a bug in fdq, 130 Ctrl-C, 143 SIGTERM.';

  static override readonly examples = [
    {
      command:
        '<%= config.bin %> <%= command.id %> --url http://127.0.0.1:8000 --num-prompts 200 --max-concurrency 1,4,16',
      description: 'Load a running server at three concurrencies:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> --model ./my-model -q wint8 --request-rate 2 --goodput ttft:500 tpot:80',
      description: 'Serve a model for the test, and count requests that are answered fast enough:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> --url http://127.0.0.1:8000 --dataset-name sharegpt --dataset-path chats.json --tokenizer ./my-model --save-result',
      description: "Send conversations of a file, and write vLLM's document of the run:",
    },
  ];

  static override readonly flags = toOclifFlags(BENCH_SERVE_FLAGS);

  async run(): Promise<object | undefined> {
    const settings = await this.parseSettings(BENCH_SERVE_FLAGS);
    const values = valuesOf(settings);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(BENCH_SERVE_FLAGS, settings);
      process.stdout.write(printSettings(BENCH_SERVE_FLAGS, settings));
      return undefined;
    }
    const { parseServeBench } = await import('../../bench/client/options.js');
    const options = parseServeBench(values);
    const { openBenchOutput } = await import('../../bench/output.js');
    const output = openBenchOutput(this, values, 'serve');
    const { refuseLeftOut } = await import('../../bench/gate/left-out.js');
    const { leftOutOfLoad } = await import('../../bench/client/left-out.js');
    refuseLeftOut(output.gate.conditions, leftOutOfLoad(options));
    if (options.repetitions === 1) {
      const { describeSingleSample } = await import('../../bench/gate/options.js');
      const warning = describeSingleSample(output.gate, '--repetitions');
      if (warning !== null) this.warn(warning);
    }
    return this.measure(options, output, settings);
  }

  private async measure(
    options: ServeBenchOptions,
    output: BenchOutput,
    settings: Settings<typeof BENCH_SERVE_FLAGS>,
  ): Promise<object> {
    const { runServeBench } = await import('../../bench/client/run-serve-bench.js');
    const { checkScenarios } = await import('../../bench/gate/options.js');
    const { createProgress } = await import('../../cli/progress.js');
    const progress = createProgress({
      locate: options.url === undefined ? 'Start fdq serve' : 'Find server',
      ...(options.numWarmups === 0 ? {} : { warm_up: 'Warm up' }),
      quantize: 'Measure',
    });
    const unsaved: FdqError[] = [];
    const interrupt = watchInterrupt();
    try {
      const report = await runServeBench(options, {
        ui: this.createUi(progress),
        signal: interrupt.signal,
        server: {
          bin: path.join(this.config.root, 'bin', 'run.js'),
          settings: serverSettings(settings, options),
          environment: serverEnvironment(),
        },
        checkScenarios: (names) => checkScenarios(output.gate, names),
        unsaved: (error) => unsaved.push(error),
      });
      await progress.stop(interrupt.exitCode === undefined ? 'ready' : 'failed');
      return await output.finish(report, interrupt.exitCode, unsaved);
    } catch (error) {
      await progress.stop('failed');
      throw this.afterInterrupt(error, interrupt.signal);
    } finally {
      interrupt.dispose();
    }
  }

  private createUi(progress: Progress): ServeBenchUi {
    const phases = { server: 'locate', warm_up: 'warm_up', measure: 'quantize' } as const satisfies Record<
      string,
      PhaseName
    >;
    return {
      step: (name, state, message) =>
        progress.phase(phases[name], state, message === undefined ? {} : { message }),
      warn: (line) => void this.warn(line),
    };
  }
}

/** What was set for the server, whatever set it. */
function serverSettings(
  settings: Settings<typeof BENCH_SERVE_FLAGS>,
  { concurrencies, dataset, servedModelName }: ServeBenchOptions,
): Readonly<Record<string, unknown>> {
  const names = Object.keys(BENCHED_SERVER_FLAGS) as (keyof typeof BENCHED_SERVER_FLAGS)[];
  const given = names
    .map((name) => [name, settings[name]] as const)
    .filter(([, { origin, value }]) => origin.kind !== 'default' && value !== undefined)
    .map(([name, { value }]) => [name, value] as const);
  const atOnce = Math.max(...concurrencies.map((count) => (count === Infinity ? dataset.numPrompts : count)));
  return {
    ...Object.fromEntries(given),
    ...(servedModelName === undefined ? {} : { 'served-model-name': [servedModelName] }),
    'max-concurrency': Math.max(SERVER_CONCURRENCY, atOnce),
  };
}

/**
 * The server gets its settings by name; variables of the same names may mean something else to it, and those that mean
 * nothing were warned about.
 */
function serverEnvironment(): Readonly<Record<string, string | undefined>> {
  const unknown = findUnknownVariables(process.env).map(({ name }) => name);
  const taken = new Set([...Object.keys(BENCH_SERVE_FLAGS).map(environmentName), ...unknown]);
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !taken.has(name)));
}
