import type { AutoOptions } from './cli/auto-options.js';
import { chooseForWeights } from './inspect/choose-for-weights.js';
import { saveQuantizationConfig } from './inspect/save-config.js';
import type { LoadOptions } from './load/load-model.js';
import { loadRuntime } from './runtime/load-addon.js';

export interface ChooserOptions {
  readonly auto: AutoOptions;
  /** What the other flags say about quantization. */
  readonly flags: Pick<
    LoadOptions,
    'quantization' | 'quantizationConfig' | 'quantizeLmHead' | 'quantizeEmbeddings' | 'kvCacheDtype'
  >;
  readonly threads: number;
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
  readonly info: (line: string) => void;
}

/** `--quantization auto`: measures while planning, says what was chosen and writes it where that was asked for. */
export function chooseSchemes(options: ChooserOptions): NonNullable<LoadOptions['chooseQuantization']> {
  return async (weights, graph, destination) => {
    const { saveConfig, ...limits } = options.auto;
    const { quantization, quantizationConfig, quantizeLmHead, quantizeEmbeddings, kvCacheDtype } =
      options.flags;
    const { flags, config, summary } = await chooseForWeights(weights, graph, {
      ...limits,
      destination,
      flags: {
        ...(quantization === undefined ? {} : { quantization }),
        ...(quantizationConfig === undefined ? {} : { quantizationConfig }),
        ...(quantizeLmHead === undefined ? {} : { quantizeLmHead }),
        ...(quantizeEmbeddings === undefined ? {} : { quantizeEmbeddings }),
        ...(kvCacheDtype === undefined ? {} : { kvCacheDtype }),
      },
      addon: loadRuntime().addon,
      threads: options.threads,
      onProgress: options.onProgress,
      signal: options.signal,
    });
    for (const line of summary) options.info(line);
    if (saveConfig !== undefined) saveQuantizationConfig(saveConfig, config);
    return flags;
  };
}
