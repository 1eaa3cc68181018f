import process from 'node:process';
import { Args } from '@oclif/core';
import { toQualityOptions } from '../../bench/quality/settings.js';
import type { QualityObserver, QualityOptions, QualityStage } from '../../bench/quality/options.js';
import type { BenchReport } from '../../bench/report.js';
import { BaseCommand } from '../../cli/base-command.js';
import { BENCH_QUALITY_FLAGS } from '../../cli/bench-quality-flags.js';
import { toOclifFlags } from '../../cli/flag-row.js';
import type { PhaseTitles } from '../../cli/progress.js';
import { mergeModelArgument } from '../../cli/serve-options.js';
import { printSettings, settingsAsJson, valuesOf, type ParsedFlags } from '../../cli/settings.js';
import { watchInterrupt } from '../../cli/signals.js';

export default class BenchQuality extends BaseCommand {
  static override readonly summary = 'Measure what quantizing costs: perplexity, accuracy.';

  static override readonly description =
    'Scores a text with every scheme over every type of KV cache, and holds each against the unquantized model in float32 on the same tokens. The divergence (kl) is the figure to gate on: it tells 8 bits from 4 where perplexity and accuracy cannot. The text is cut into windows of --window tokens, each scored from an empty context; the first token of a window is not scored, and what is left at the end is dropped.\n\nPrompts are answered greedily through the engine. A line of the file is {"messages": [...], "expected": ..., "match": ...} or has "prompt", a text, instead of "messages"; match is exact (default; the answer without white space around it), json (equal as JSON values) or contains ("expected" lists strings that occur in order).\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 model not found or not supported, 4 --fail-if holds, 5 --fail-if is undecided, 70 a bug in fdq, 130 Ctrl-C, 143 SIGTERM.';

  static override readonly usage = 'bench quality [MODEL] [FLAGS]';

  static override readonly examples = [
    {
      command:
        '<%= config.bin %> <%= command.id %> models/demo --quantization wint8,wint4:g128,block_wise_fp8',
      description: 'Compare schemes on the text and the prompts that come with the demo model:',
    },
    {
      command:
        "<%= config.bin %> <%= command.id %> ./my-model -q wint4 --text wiki.test.raw --max-windows 40 --fail-if 'kl > 0.02'",
      description: 'Fail in CI when a scheme costs too much:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> ./my-model --kv-cache-dtype bf16,int8,fp8,int4 --text wiki.test.raw',
      description: 'Compare types of the KV cache:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> ./converted --reference ./original --text wiki.test.raw --reference-logits original.logits',
      description: 'Hold a converted folder against its original, one model in memory at a time:',
    },
  ];

  static override readonly args = {
    model: Args.string({ description: 'Model folder or Hugging Face id.', ignoreStdin: true }),
  };

  static override readonly flags = toOclifFlags(BENCH_QUALITY_FLAGS);

  async run(): Promise<BenchReport | object | undefined> {
    const settings = await this.parseSettings(BENCH_QUALITY_FLAGS, modelOf);
    const values = valuesOf(settings);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(BENCH_QUALITY_FLAGS, settings);
      process.stdout.write(printSettings(BENCH_QUALITY_FLAGS, settings));
      return undefined;
    }
    const options = toQualityOptions(values, process.env['FDQ_ISA']);
    // Wrong flags and help are answered without loading the runtime.
    const { openBenchOutput } = await import('../../bench/output.js');
    const { refuseLeftOut } = await import('../../bench/gate/left-out.js');
    const { leftOutOfQuality } = await import('../../bench/quality/left-out.js');
    const { checkScenarios } = await import('../../bench/gate/options.js');
    const output = openBenchOutput(this, values, 'quality');
    const { gate } = output;
    refuseLeftOut(gate.conditions, leftOutOfQuality(options));
    const watch = watchInterrupt();
    try {
      const report = await this.measure(options, watch.signal, (names, inputs) => {
        refuseLeftOut(gate.conditions, leftOutOfQuality(options, inputs));
        checkScenarios(gate, names);
      });
      return await output.finish(report, watch.exitCode);
    } catch (error) {
      throw this.afterInterrupt(error, watch.signal);
    } finally {
      watch.dispose();
    }
  }

  private async measure(
    options: QualityOptions,
    signal: AbortSignal,
    planned: NonNullable<QualityObserver['planned']>,
  ): Promise<BenchReport> {
    const { measureQuality } = await import('../../bench/quality/measure-quality.js');
    const { createProgress } = await import('../../cli/progress.js');
    const progress = createProgress<QualityStage>(titlesOf(options));
    const observer: QualityObserver = {
      stage: (name, state, message) => progress.phase(name, state, message === undefined ? {} : { message }),
      planned,
    };
    try {
      const report = await measureQuality(options, observer, signal);
      await progress.stop(report.partial ? 'failed' : 'ready');
      return report;
    } catch (error) {
      await progress.stop('failed');
      throw error;
    }
  }
}

function titlesOf(options: QualityOptions): PhaseTitles<QualityStage> {
  return {
    plan: 'Plan',
    ...(options.referenceLogits === undefined ? {} : { reference: 'Logits of the unquantized model' }),
    ...(options.layers ? { layers: 'Measure layers' } : {}),
    load: 'Load models',
    score: 'Score text',
    answer: 'Answer prompts',
  };
}

function modelOf(flags: ParsedFlags, args: ParsedFlags): ParsedFlags {
  const model = mergeModelArgument(flags['model'] as string | undefined, args['model'] as string | undefined);
  return model === undefined ? {} : { model };
}
