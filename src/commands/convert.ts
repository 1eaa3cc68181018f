import os from 'node:os';
import process from 'node:process';
import { Args } from '@oclif/core';
import { withAuto } from '../cli/auto-options.js';
import { BaseCommand } from '../cli/base-command.js';
import { CONVERT_FLAGS } from '../cli/convert-flags.js';
import { toOclifFlags, type FlagValues } from '../cli/flag-row.js';
import type { Progress } from '../cli/progress.js';
import { quantizationOptions } from '../cli/quantization-options.js';
import { formatBytes, printable } from '../cli/render.js';
import { mergeModelArgument } from '../cli/serve-options.js';
import type { PhaseName } from '../cli/serve-ui.js';
import { printSettings, settingsAsJson, valuesOf, type ParsedFlags } from '../cli/settings.js';
import { watchInterrupt } from '../cli/signals.js';
import type { ConvertObserver, ConvertOptions, ConvertPhase, ConvertReport } from '../convert/convert.js';
import { UserError } from '../errors.js';

type Values = FlagValues<typeof CONVERT_FLAGS>;

/** The screen's phase of each phase of a conversion. */
const SCREEN_PHASES: Readonly<Record<ConvertPhase, PhaseName>> = {
  locate: 'locate',
  plan: 'plan',
  write: 'quantize',
  verify: 'warm_up',
};

export default class Convert extends BaseCommand {
  static override readonly summary = 'Write a quantized model to a folder.';

  static override readonly description =
    'Quantizes a checkpoint exactly as fdq serve would, layer by layer, and writes the result. Takes the memory of its largest layers, whatever the size of the model. A conversion that fails or is interrupted leaves nothing behind.\n\nExit codes: 0 written, 1 failed, 2 wrong usage or configuration, or the output exists, 3 model not found or not supported, 4 --verify found a difference, 70 a bug in fdq, 130 Ctrl-C, 143 SIGTERM.';

  static override readonly usage = '<%= command.id %> [MODEL] --output <folder> [FLAGS]';

  static override readonly examples = [
    {
      command:
        '<%= config.bin %> <%= command.id %> Qwen/Qwen3-0.6B --quantization wint4:g128 --output ./qwen-wint4',
      description: 'Quantize once, then start in a moment with fdq serve ./qwen-wint4:',
    },
    {
      command: '<%= config.bin %> <%= command.id %> ./my-model -q wint8 -o ./my-model-wint8 --verify',
      description: 'Prove that the result answers as the model quantized while loading does:',
    },
  ];

  static override readonly args = {
    model: Args.string({
      description: 'Model folder or Hugging Face id, like --model, or an .onnx file.',
      ignoreStdin: true,
    }),
  };

  static override readonly flags = toOclifFlags(CONVERT_FLAGS);

  async run(): Promise<object | undefined> {
    const settings = await this.parseSettings(CONVERT_FLAGS, modelOf);
    const values = valuesOf(settings);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(CONVERT_FLAGS, settings);
      process.stdout.write(printSettings(CONVERT_FLAGS, settings));
      return undefined;
    }
    const { createProgress } = await import('../cli/progress.js');
    const interrupt = watchInterrupt();
    const progress = createProgress(titlesOf(values));
    try {
      const report = await this.convert(values, progress, interrupt.signal);
      await progress.stop('ready');
      this.log(describe(report));
      return report;
    } catch (error) {
      await progress.stop('failed');
      throw this.afterInterrupt(error, interrupt.signal);
    } finally {
      interrupt.dispose();
    }
  }

  private async convert(values: Values, progress: Progress, signal: AbortSignal): Promise<ConvertReport> {
    const options = toConvertOptions(values, signal);
    const { auto } = withAuto(quantizationOptions(values), values);
    const observer: ConvertObserver = {
      phase: (name, state, detail) => progress.phase(SCREEN_PHASES[name], state, detail),
      warn: (line) => void this.warn(line),
    };
    // Wrong flags and help are answered without loading the runtime.
    const { convert } = await import('../convert/convert.js');
    if (auto === undefined) return convert(options, observer);
    const { chooseSchemes } = await import('../choose-schemes.js');
    const chooseQuantization = chooseSchemes({
      auto,
      flags: options.load,
      threads: options.load.threads,
      signal,
      onProgress: (doneBytes, totalBytes) =>
        observer.phase('plan', 'progress', { doneBytes, totalBytes, message: 'measuring schemes' }),
      info: (line) => void process.stderr.write(`${line}\n`),
    });
    return convert({ ...options, load: { ...options.load, chooseQuantization } }, observer);
  }
}

function titlesOf({ verify }: Values): Partial<Record<PhaseName, string>> {
  return {
    locate: 'Locate model',
    plan: 'Plan',
    quantize: 'Quantize and write weights',
    ...(verify === true ? { warm_up: 'Verify' } : {}),
  };
}

function toConvertOptions(values: Values, signal: AbortSignal): ConvertOptions {
  const { auto: _, ...quantization } = withAuto(quantizationOptions(values), values);
  const { model, output, revision } = values;
  if (model === undefined || model === '') throw missing('model', 'a model: a folder or a Hugging Face id');
  if (output === undefined || output === '') throw missing('output', 'an output folder');
  return {
    load: {
      model,
      locate: { offline: values.offline ?? false, ...(revision === undefined ? {} : { revision }) },
      ...quantization,
      requantize: values.requantize ?? false,
      kvCacheDtype: values['kv-cache-dtype'],
      dtype: 'auto',
      threads: values.threads ?? os.availableParallelism(),
      isa: process.env['FDQ_ISA'],
      memory: { utilization: 1, maxModelLen: 32, maxNumSeqs: 1, maxBatchedTokens: 32 },
    },
    output,
    format: values.format,
    force: values.force ?? false,
    verify: values.verify ?? false,
    signal,
  };
}

function missing(param: string, what: string): UserError {
  return new UserError('usage', `Expected ${what}.`, {
    param,
    suggestions: ['fdq convert ./my-model --quantization wint4:g128 --output ./my-model-wint4'],
  });
}

function describe({ output, format, scheme, weightBytes, checkpointBytes, verified }: ConvertReport): string {
  const parts = [
    `Wrote ${printable(output)}`,
    format,
    scheme,
    `weights ${formatBytes(weightBytes)} of ${formatBytes(checkpointBytes)}`,
    ...(verified === undefined ? [] : [`verified: ${verified}`]),
  ];
  return parts.join(' | ');
}

function modelOf(flags: ParsedFlags, args: ParsedFlags): ParsedFlags {
  const model = mergeModelArgument(flags['model'] as string | undefined, args['model'] as string | undefined);
  return model === undefined ? {} : { model };
}
