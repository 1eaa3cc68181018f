import type { FlagValues } from './flag-row.js';
import type { QUANTIZATION_FLAGS } from './flags.js';
import { parseJsonObject, type JsonObject } from './json-values.js';

/** What the flags about quantization say, for every command that has them; absent is what was not given. */
export interface QuantizationOptions {
  /** A scheme or precision name as typed, or a JSON object. */
  readonly quantization?: string;
  readonly quantizationConfig?: JsonObject;
  readonly quantizeLmHead?: boolean;
  readonly quantizeEmbeddings?: boolean;
}

type Flags = Pick<
  FlagValues<typeof QUANTIZATION_FLAGS>,
  'quantization' | 'quantization-config' | 'quantize-lm-head' | 'quantize-embeddings'
>;

/**
 * Reads the file that `--quantization @file` names; what the flags mean is checked by the planner.
 * @throws UserError `usage`
 */
export function quantizationOptions(flags: Flags): QuantizationOptions {
  const {
    quantization,
    'quantization-config': config,
    'quantize-lm-head': head,
    'quantize-embeddings': embeddings,
  } = flags;
  return {
    ...(quantization === undefined ? {} : { quantization: quantizationText(quantization) }),
    ...(config === undefined ? {} : { quantizationConfig: config }),
    ...(head === undefined ? {} : { quantizeLmHead: head }),
    ...(embeddings === undefined ? {} : { quantizeEmbeddings: embeddings }),
  };
}

/** A name as it is; an object, also one in a file, as JSON. */
function quantizationText(text: string): string {
  const trimmed = text.trim();
  if (!trimmed.startsWith('{') && !trimmed.startsWith('@')) return text;
  return JSON.stringify(parseJsonObject(trimmed, '--quantization'));
}
