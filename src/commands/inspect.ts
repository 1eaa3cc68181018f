import os from 'node:os';
import process from 'node:process';
import { Args } from '@oclif/core';
import { withAuto } from '../cli/auto-options.js';
import { BaseCommand } from '../cli/base-command.js';
import { toOclifFlags, type FlagValues } from '../cli/flag-row.js';
import { INSPECT_FLAGS } from '../cli/inspect-flags.js';
import { quantizationOptions } from '../cli/quantization-options.js';
import { mergeModelArgument } from '../cli/serve-options.js';
import { printSettings, settingsAsJson, valuesOf, type ParsedFlags } from '../cli/settings.js';
import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import type { Inspection, InspectOptions } from '../inspect/inspect.js';
import type { View } from '../inspect/view.js';

type Values = FlagValues<typeof INSPECT_FLAGS>;

export default class Inspect extends BaseCommand {
  static override readonly summary = 'Show scheme, bytes and kernel of every layer of a model.';

  static override readonly description =
    'Reads only the headers of a checkpoint (on the hub too, where nothing is downloaded), of a folder that fdq wrote or of any ONNX model: schemes, bytes, kernels, memory and the rule that decided about each layer. With --measure the layers are quantized one after the other and compared with the original.\n\nThe columns that --sort, --filter and --fail-if name are: name, kind, shape, stored, scheme, precision, bytes_before, bytes_after (or bytes), bits, frobenius, sqnr, cosine, max_abs, saturated, zero_scales, kernel, rule.\n\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 model not found or not supported, 4 --fail-if holds for a layer, 70 a bug in fdq, 130 Ctrl-C.';

  static override readonly usage = '<%= command.id %> [MODEL] [FLAGS]';

  static override readonly examples = [
    {
      command: '<%= config.bin %> <%= command.id %> ./my-model --quantization wint4:g128',
      description: 'See what a scheme would do to a model, without reading its weights:',
    },
    {
      command:
        "<%= config.bin %> <%= command.id %> ./my-model -q wint4 --measure --sort sqnr:asc --fail-if 'sqnr<15dB'",
      description: 'Measure what is lost, worst layers first, and fail in CI when it is too much:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> ./my-model -q auto --max-weight-bytes 400MiB --save-quantization-config plan.json',
      description: 'Choose a scheme for each layer by its error:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> ./my-model -q wint4 --explain model.layers.0.mlp.down_proj',
      description: 'Ask why a layer gets its scheme:',
    },
  ];

  static override readonly args = {
    model: Args.string({
      description: 'Model folder, Hugging Face id, .onnx file, or report saved with --json.',
      ignoreStdin: true,
    }),
  };

  static override readonly flags = toOclifFlags(INSPECT_FLAGS);

  async run(): Promise<object | undefined> {
    const settings = await this.parseSettings(INSPECT_FLAGS, modelOf);
    const values = valuesOf(settings);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(INSPECT_FLAGS, settings);
      process.stdout.write(printSettings(INSPECT_FLAGS, settings));
      return undefined;
    }
    // Wrong flags and help are answered without loading the runtime.
    const { parseView } = await import('../inspect/view.js');
    const view = parseView(values);
    const options = toInspectOptions(values);
    const { inspectModel } = await import('../inspect/inspect.js');
    const inspection = await this.withProgress(options, inspectModel);
    return this.show(inspection, view, options);
  }

  /** Shows a download, which may be large, and measuring, which takes long. */
  private async withProgress(
    options: InspectOptions,
    inspect: (options: InspectOptions) => Promise<Inspection>,
  ): Promise<Inspection> {
    const measures = options.measure || options.auto !== undefined;
    const { SequentialProgress } = await import('../cli/progress.js');
    const phases = new SequentialProgress({
      locate: measures ? 'Locate model' : 'Download model',
      ...(measures ? { quantize: 'Measure layers' } : {}),
    });
    if (measures) phases.enter('locate', {});
    try {
      const inspection = await inspect({
        ...options,
        locate: {
          ...options.locate,
          onProgress: ({ file, bytesDone, bytesTotal }) =>
            phases.enter('locate', { doneBytes: bytesDone, totalBytes: bytesTotal, message: file }),
        },
        onProgress: (doneBytes, totalBytes) => phases.enter('quantize', { doneBytes, totalBytes }),
      });
      await phases.end('ready');
      return inspection;
    } catch (error) {
      await phases.end('failed');
      throw error;
    }
  }

  private async show(
    inspection: Inspection,
    view: View,
    options: InspectOptions,
  ): Promise<object | undefined> {
    const { showInspection } = await import('../inspect/show.js');
    const shown = await showInspection(inspection, view, { options, width: terminalWidth() });
    for (const warning of inspection.report.warnings) this.warn(warning);
    for (const line of inspection.auto?.summary ?? []) process.stderr.write(`${line}\n`);
    if (!this.jsonEnabled()) process.stdout.write(shown.text);
    if (shown.failures.length > 0) this.failWithResult(checkFailed(shown.failures), shown.result);
    return shown.result;
  }
}

function checkFailed(failures: readonly string[]): UserError {
  return new UserError(
    'check_failed',
    `--fail-if holds for ${counted(failures.length, 'layer')}:\n${failures.map((line) => `  ${line}`).join('\n')}`,
    {
      param: 'fail-if',
      suggestions: ['Give these layers another scheme with "targets", or leave them out.'],
    },
  );
}

function terminalWidth(): number {
  return process.stdout.isTTY ? process.stdout.columns : Infinity;
}

function toInspectOptions(values: Values): InspectOptions {
  const { auto, ...quantization } = withAuto(quantizationOptions(values), values);
  const { model, revision, 'max-model-len': maxModelLen, 'kv-cache-memory': kvCacheBytes } = values;
  if (model === undefined || model === '') {
    throw new UserError('usage', 'Expected a model: a folder, a Hugging Face id or an .onnx file.', {
      param: 'model',
      suggestions: ['fdq inspect ./my-model', 'fdq inspect Qwen/Qwen3-0.6B --quantization wint8'],
    });
  }
  return {
    model,
    locate: { offline: values.offline ?? false, ...(revision === undefined ? {} : { revision }) },
    quantization: { ...quantization, kvCacheDtype: values['kv-cache-dtype'] },
    ...(auto === undefined ? {} : { auto }),
    dtype: values.dtype,
    isa: process.env['FDQ_ISA'],
    memory: {
      threads: values.threads ?? os.availableParallelism(),
      utilization: values['gpu-memory-utilization'],
      ...(maxModelLen === undefined ? {} : { maxModelLen }),
      ...(kvCacheBytes === undefined ? {} : { kvCacheBytes }),
      ...(values['max-num-seqs'] === undefined ? {} : { maxNumSeqs: values['max-num-seqs'] }),
      ...(values['max-num-batched-tokens'] === undefined
        ? {}
        : { maxBatchedTokens: values['max-num-batched-tokens'] }),
    },
    measure: values.measure ?? false,
  };
}

function modelOf(flags: ParsedFlags, args: ParsedFlags): ParsedFlags {
  const model = mergeModelArgument(flags['model'] as string | undefined, args['model'] as string | undefined);
  return model === undefined ? {} : { model };
}
