import { openFdqFolder } from '../load/folder/open-folder.js';
import { findDamagedTensor } from '../load/folder/verify-tensors.js';
import { checkFailed, compareLogits } from './verify-logits.js';
import type { VerifyJob } from './writer.js';

/**
 * Proves a written folder: every byte has the digest fdq.json gives, and the model in it answers a prompt with the very
 * logits of the model quantized while loading. Takes the memory of serving the model.
 * @throws UserError `check_failed` naming the tensor or the first logit that differs
 */
export async function verifyFdq({ plan, load, dir, signal }: VerifyJob): Promise<string> {
  const { manifest, weights } = await openFdqFolder(dir);
  const damaged = await findDamagedTensor(weights, manifest.weights.tensors, {
    threads: load.threads,
    signal,
  });
  if (damaged !== undefined) throw checkFailed(`the bytes of ${damaged} are not those that were written`);
  const { chooseQuantization: _, ...flags } = load;
  const { quantization: _name, quantizationConfig: _config, ...bare } = flags;
  const { quantizeLmHead: _head, quantizeEmbeddings: _embeddings, ...stored } = bare;
  const logits = await compareLogits({
    expected: { ...flags, ...plan.quantization, signal },
    found: { ...stored, model: dir, locate: {}, signal },
    tolerance: 0,
  });
  return `${manifest.weights.tensors.length} tensors and ${logits} logits are equal`;
}
