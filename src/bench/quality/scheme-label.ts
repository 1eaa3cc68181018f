import { createHash } from 'node:crypto';
import type { QuantizationFlags } from '../../load/apply-quantization.js';

const DIGITS = 8;

/**
 * A scheme as part of the name of a scenario. A name says it all; of an object the name is followed by its digest,
 * which tells it from others.
 * @param name canonical
 */
export function labelScheme(name: string, flags: QuantizationFlags): string {
  const { quantization, quantizationConfig, quantizeLmHead, quantizeEmbeddings } = flags;
  const objects = [quantization?.startsWith('{') === true ? quantization : undefined, quantizationConfig];
  const texts = objects.filter((object) => object !== undefined).map((object) => JSON.stringify(object));
  const digest = createHash('sha256').update(texts.join()).digest('hex').slice(0, DIGITS);
  return [
    name,
    texts.length === 0 ? '' : `#${digest}`,
    quantizeLmHead === true ? '+lm_head' : '',
    quantizeEmbeddings === true ? '+embeddings' : '',
  ].join('');
}
