import { UserError } from '../errors.js';
import type { FlagValues } from './flag-row.js';
import type { AUTO_FLAGS } from './flags.js';
import type { JsonObject } from './json-values.js';
import type { QuantizationOptions } from './quantization-options.js';
import { checkWritable } from './write-file.js';

/** What `--quantization auto` is held to, and where its choice is written. */
export interface AutoOptions {
  readonly maxWeightBytes?: number;
  readonly maxError?: number;
  readonly saveConfig?: string;
}

/** The quantization flags of a command that has `AUTO_FLAGS` too. */
export interface AutoQuantizationOptions extends QuantizationOptions {
  /** Present for `--quantization auto`, a name that is then in none of the others. */
  readonly auto?: AutoOptions;
}

type AutoFlags = FlagValues<typeof AUTO_FLAGS>;

const AUTO = 'auto';

/**
 * Tells `auto` from schemes, wherever it was written, and refuses limits that would do nothing.
 * @throws UserError `usage`
 */
export function withAuto(options: QuantizationOptions, flags: AutoFlags): AutoQuantizationOptions {
  const { quantization, quantizationConfig, ...switches } = options;
  const inline =
    quantization?.startsWith('{') === true ? (JSON.parse(quantization) as JsonObject) : undefined;
  const names = [
    inline === undefined ? quantization : inline['quantization'],
    quantizationConfig?.['quantization'],
  ]
    .filter((name) => typeof name === 'string')
    .map((name) => name.trim().toLowerCase());
  if (!names.includes(AUTO)) {
    refuseLimits(flags);
    return options;
  }
  const other = names.find((name) => name !== AUTO);
  if (other !== undefined) {
    throw new UserError('usage', `Expected one scheme but received auto and ${other}.`, {
      param: 'quantization',
      suggestions: ['Say auto alone: it chooses among all schemes.'],
    });
  }
  const config = Object.fromEntries(
    Object.entries({ ...inline, ...quantizationConfig }).filter(([key]) => key !== 'quantization'),
  );
  return {
    ...switches,
    ...(Object.keys(config).length === 0 ? {} : { quantizationConfig: config }),
    auto: readLimits(flags),
  };
}

function readLimits(flags: AutoFlags): AutoOptions {
  const { 'max-weight-bytes': bytes, 'max-error': error, 'save-quantization-config': file } = flags;
  if (bytes === undefined && error === undefined) {
    throw new UserError('usage', '--quantization auto needs a limit to choose by.', {
      param: 'quantization',
      suggestions: [
        'Add --max-weight-bytes 400MiB: the least error within that size.',
        'Or --max-error 0.05: the smallest size with no layer off by more than 5 %.',
      ],
    });
  }
  if (file !== undefined) checkWritable(file, '--save-quantization-config');
  return {
    ...(bytes === undefined ? {} : { maxWeightBytes: bytes }),
    ...(error === undefined ? {} : { maxError: error }),
    ...(file === undefined ? {} : { saveConfig: file }),
  };
}

function refuseLimits(flags: AutoFlags): void {
  const names = ['max-weight-bytes', 'max-error', 'save-quantization-config'] as const;
  const given = names.find((name) => flags[name] !== undefined);
  if (given === undefined) return;
  throw new UserError('usage', `--${given} is for --quantization auto, which was not given.`, {
    param: given,
    suggestions: [`Add --quantization auto, or leave --${given} out.`],
  });
}
