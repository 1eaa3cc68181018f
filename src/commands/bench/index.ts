import process from 'node:process';
import { createInterface } from 'node:readline';
import { Args } from '@oclif/core';
import { BENCH_MODEL_FLAGS, BENCH_QUANTIZATION_FLAGS, BENCH_SPEED_FLAGS } from '../../cli/bench-flags.js';
import { BENCH_GATE_FLAGS, BENCH_ROUNDS_FLAGS } from '../../cli/bench-gate-flags.js';
import { toSpeedSettings } from '../../cli/bench-options.js';
import { BENCH_REPORT_FLAGS } from '../../cli/bench-report-flags.js';
import { BaseCommand } from '../../cli/base-command.js';
import { toOclifFlags, type FlagTable, type FlagValues } from '../../cli/flag-row.js';
import { GLOBAL_FLAGS } from '../../cli/flags.js';
import { mergeModelArgument } from '../../cli/serve-options.js';
import { printSettings, settingsAsJson, valuesOf, type ParsedFlags } from '../../cli/settings.js';
import { watchInterrupt, type InterruptWatch } from '../../cli/signals.js';
import type { BenchReport } from '../../bench/report.js';
import type { SpeedOptions } from '../../bench/speed/options.js';

/** Of this process alone, also when another build is measured beside it. */
const OWN_FLAGS = { ...BENCH_GATE_FLAGS, ...BENCH_ROUNDS_FLAGS, ...BENCH_REPORT_FLAGS } as const;

const FLAGS = {
  ...BENCH_MODEL_FLAGS,
  ...BENCH_QUANTIZATION_FLAGS,
  ...BENCH_SPEED_FLAGS,
  ...OWN_FLAGS,
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;

type Values = FlagValues<typeof FLAGS>;

export default class Bench extends BaseCommand {
  static override readonly summary = 'Measure how fast a model answers on this machine.';

  static override readonly description =
    'Loads a model once for each scheme, cache type and number of threads, and measures every combination of prompt length, answer length, depth and batch: prompt and decode speed, time to first token, latency between tokens, load time and memory, and what share of the memory bandwidth decoding reaches. What each figure means: docs/bench.md.\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 model not found or not supported, 4 --fail-if holds, 5 --fail-if could not be decided, 70 a bug in fdq, 130 Ctrl-C, 143 SIGTERM.';

  static override readonly usage = '<%= command.id %> [MODEL] [FLAGS]';

  static override readonly examples = [
    {
      command: '<%= config.bin %> <%= command.id %> ./my-model --quantization wint8,wint4',
      description: 'Compare two schemes:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> -m ./my-model -q wint4 -p 512 -n 128 -d 0,4096 -b 1,8,32 -r 5',
      description: 'Sweep over depth and batch:',
    },
  ];

  static override readonly args = {
    model: Args.string({ description: 'Model folder or Hugging Face id, like --model.', ignoreStdin: true }),
  };

  static override readonly flags = toOclifFlags(FLAGS);

  async run(): Promise<object | undefined> {
    const settings = await this.parseSettings(FLAGS, modelOf);
    const values = valuesOf(settings);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(FLAGS, settings);
      process.stdout.write(printSettings(FLAGS, settings));
      return undefined;
    }
    const options: SpeedOptions = { ...toSpeedSettings(values), isa: process.env['FDQ_ISA'] };
    const interrupt = watchInterrupt();
    try {
      return values['rounds-from-stdin'] === true
        ? await this.answerRounds(options, interrupt)
        : await this.measure(options, values, interrupt);
    } catch (error) {
      throw this.afterInterrupt(error, interrupt.signal);
    } finally {
      interrupt.dispose();
    }
  }

  private async measure(options: SpeedOptions, values: Values, interrupt: InterruptWatch): Promise<object> {
    // Help and wrong flags are answered without loading the runtime.
    const { openBenchOutput } = await import('../../bench/output.js');
    const output = openBenchOutput(this, values, 'speed');
    const { compareAndDecide, measureAndDecide } = await import('../../bench/speed/decide.js');
    const { comparedBuilds } = await import('../../bench/speed/builds.js');
    const { gate } = output;
    const { createBenchProgress } = await import('../../cli/bench-progress.js');
    const watch = { progress: createBenchProgress(), signal: interrupt.signal };
    let report: BenchReport;
    try {
      if (gate.baselineCommand === null) {
        report = await measureAndDecide(options, gate, watch);
      } else {
        const builds = comparedBuilds(this.argv, gate.baselineCommand, { table: FLAGS, own: OWN_FLAGS });
        report = await compareAndDecide(options, builds, { ...watch, gate });
      }
      await watch.progress.stop(report.partial ? 'failed' : 'ready');
    } catch (error) {
      await watch.progress.stop('failed');
      throw error;
    }
    return output.finish(report, interrupt.exitCode);
  }

  private async answerRounds(options: SpeedOptions, { signal }: InterruptWatch): Promise<undefined> {
    const { answerRounds } = await import('../../bench/speed/rounds.js');
    const lines = createInterface({ input: process.stdin, signal });
    const write = (message: object): void => void process.stdout.write(`${JSON.stringify(message)}\n`);
    try {
      await answerRounds(options, { lines, write, signal });
      signal.throwIfAborted();
    } finally {
      lines.close();
      process.stdin.destroy();
    }
    return undefined;
  }
}

function modelOf(flags: ParsedFlags, args: ParsedFlags): ParsedFlags {
  const model = mergeModelArgument(flags['model'] as string | undefined, args['model'] as string | undefined);
  return model === undefined ? {} : { model };
}
