import { rmSync } from 'node:fs';
import process from 'node:process';
import { Args } from '@oclif/core';
import { BaseCommand } from '../cli/base-command.js';
import { cacheOptions } from '../cli/cache-options.js';
import { toOclifFlags } from '../cli/flag-row.js';
import { SERVE_FLAGS } from '../cli/flags.js';
import type { Progress } from '../cli/progress.js';
import { readyLines } from '../cli/ready-lines.js';
import {
  mergeModelArgument,
  toServeOptions,
  type ServeFlagValues,
  type ServeOptions,
} from '../cli/serve-options.js';
import type { ServeUi } from '../cli/serve-ui.js';
import {
  ignoredFlagWarnings,
  printSettings,
  settingsAsJson,
  valuesOf,
  type ParsedFlags,
} from '../cli/settings.js';
import { exitCodeAfter, watchSignals, type SignalWatch } from '../cli/signals.js';
import { writeFileWhole } from '../cli/write-file.js';
import type { ReadyInfo, RunningServer } from '../serve.js';

export default class Serve extends BaseCommand {
  static override readonly summary = 'Quantize a model while loading it, and serve it to clients.';

  static override readonly description =
    'Takes a model as it was published (safetensors in BF16, FP16 or FP32), quantizes its weights while they stream in, and answers /v1/chat/completions, /v1/completions and the other routes of the OpenAI API.\n\nExit codes: 0 stopped on request, 1 failed, 2 wrong usage or configuration, 3 model not found or not supported, 70 a bug in fdq, 130 Ctrl-C.';

  static override readonly usage = '<%= command.id %> [MODEL] [FLAGS]';

  static override readonly examples = [
    {
      command: '<%= config.bin %> <%= command.id %> --model Qwen/Qwen3-0.6B --quantization wint8',
      description: 'Serve a model of the Hugging Face hub with 8-bit weights:',
    },
    {
      command:
        '<%= config.bin %> <%= command.id %> ./my-model --quantization wint4:g128 --port 9000 --max-model-len 32k',
      description: 'Serve a local folder with 4-bit weights on another port:',
    },
    {
      command: '<%= config.bin %> <%= command.id %> --config fdq.yaml --print-config',
      description: 'See what a config file, the environment and the defaults add up to:',
    },
  ];

  static override readonly args = {
    model: Args.string({ description: 'Model folder or Hugging Face id, like --model.', ignoreStdin: true }),
  };

  static override readonly flags = toOclifFlags(SERVE_FLAGS);

  async run(): Promise<object | undefined> {
    const settings = await this.parseSettings(SERVE_FLAGS, modelOf);
    const values = valuesOf(settings);
    for (const warning of ignoredFlagWarnings(SERVE_FLAGS, settings)) this.warn(warning);
    if (values['print-config'] === true) {
      if (this.jsonEnabled()) return settingsAsJson(SERVE_FLAGS, settings);
      process.stdout.write(printSettings(SERVE_FLAGS, settings));
      return undefined;
    }
    const cache = cacheOptions(values, this.config.cacheDir);
    const options = { ...toServeOptions(values), ...(cache === undefined ? {} : { cache }) };
    // Here and below: help and wrong flags are answered without loading what serving takes.
    const { checkServeOptions } = await import('../cli/serve-checks.js');
    checkServeOptions(options);
    await this.serveUntilStopped(options, values);
    return undefined;
  }

  private async serveUntilStopped(options: ServeOptions, values: ServeFlagValues): Promise<never> {
    const { createProgress } = await import('../cli/progress.js');
    const progress = createProgress();
    const ui = await this.createUi(values, progress);
    const { serve } = await import('../serve.js');
    const server = await serve(options, ui);
    const signals = watchSignals({
      drain: () => server.shutdown(options.gracefulShutdownMs),
      abort: () => server.abort(),
      info: (line) => ui.info(line),
    });
    try {
      await this.announceWhenReady(options, server, { signals, progress });
      await server.stopped;
    } catch (error) {
      await progress.stop('failed');
      // Loading that was interrupted fails: that is what the user asked for.
      if (signals.received === undefined) {
        await server.abort().catch(() => undefined);
        throw error;
      }
    } finally {
      signals.dispose();
      if (options.readyFile !== undefined) rmSync(options.readyFile, { force: true });
    }
    return this.exit(exitCodeAfter(signals.received));
  }

  private async announceWhenReady(
    options: ServeOptions,
    server: RunningServer,
    { signals, progress }: { readonly signals: SignalWatch; readonly progress: Progress },
  ): Promise<void> {
    const ready = await Promise.race([server.ready, signals.first.then(() => undefined)]);
    await progress.stop(ready === undefined ? 'failed' : 'ready');
    if (ready === undefined || signals.received !== undefined) return;
    this.announce(server.url, ready, options);
  }

  private announce(url: string, ready: ReadyInfo, options: ServeOptions): void {
    if (options.readyFile !== undefined) writeFileWhole(options.readyFile, `${url}\n`);
    if (this.jsonEnabled()) this.logJson(this.toSuccessJson({ url, ...ready }));
    else process.stderr.write(readyLines(url, ready, { hasApiKey: options.http.apiKeys.length > 0 }));
  }

  private async createUi(values: ServeFlagValues, progress: Progress): Promise<ServeUi> {
    const { createLogger } = await import('../cli/logger.js');
    const log = createLogger({
      level: values['log-level'],
      format: this.jsonEnabled() ? 'json' : values['log-format'],
    });
    const asJson = this.jsonEnabled() || values['log-format'] === 'json';
    return {
      phase: (name, state, detail) => {
        if (asJson) log.debug({ phase: name, state, ...detail }, 'phase');
        else progress.phase(name, state, detail);
      },
      warn: (line) => (asJson ? log.warn(line) : void this.warn(line)),
      info: (line) => (asJson ? log.info(line) : void process.stderr.write(`${line}\n`)),
      log,
    };
  }
}

function modelOf(flags: ParsedFlags, args: ParsedFlags): ParsedFlags {
  const model = mergeModelArgument(flags['model'] as string | undefined, args['model'] as string | undefined);
  return model === undefined ? {} : { model };
}
