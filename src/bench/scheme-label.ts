import { createHash } from 'node:crypto';
import type { QuantizationFlags } from '../load/apply-quantization.js';

const DIGITS = 8;
const UNQUANTIZED = 'none';

/** What a plan says about the schemes of a model. */
export interface PlannedSchemes {
  /** Canonical name of what was asked for. */
  readonly scheme: string;
  readonly layers: readonly { readonly scheme: string }[];
}

/**
 * A scheme as part of the name of a scenario. A name says it all; of an object the name is followed by its digest,
 * which tells it from others. A checkpoint that is stored quantized is called by the schemes of its layers.
 */
export function labelScheme(plan: PlannedSchemes, flags: QuantizationFlags): string {
  const { quantization, quantizationConfig, quantizeLmHead, quantizeEmbeddings } = flags;
  const objects = [quantization?.startsWith('{') === true ? quantization : undefined, quantizationConfig];
  const texts = objects.filter((object) => object !== undefined).map((object) => JSON.stringify(object));
  const digest = createHash('sha256').update(texts.join()).digest('hex').slice(0, DIGITS);
  return [
    nameOf(plan),
    texts.length === 0 ? '' : `#${digest}`,
    quantizeLmHead === true ? '+lm_head' : '',
    quantizeEmbeddings === true ? '+embeddings' : '',
  ].join('');
}

function nameOf({ scheme, layers }: PlannedSchemes): string {
  if (scheme !== UNQUANTIZED) return scheme;
  const stored = new Set(layers.map((layer) => layer.scheme).filter((name) => name !== UNQUANTIZED));
  return stored.size === 0 ? UNQUANTIZED : [...stored].sort().join('+');
}
