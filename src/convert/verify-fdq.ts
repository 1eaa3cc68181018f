import { UserError } from '../errors.js';
import { loadModel, type LoadedModel, type LoadOptions } from '../load/load-model.js';
import { openFdqFolder } from '../load/folder/open-folder.js';
import { findDamagedTensor } from '../load/folder/verify-tensors.js';
import { packProbeStep } from '../load/warm-up.js';
import type { VerifyJob } from './writer.js';

/** Tokens of the prompt both models get. */
const PROBE_TOKENS = 32;

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
  if (damaged !== undefined) throw failed(`the bytes of ${damaged} are not those that were written`);
  const { chooseQuantization: _, ...flags } = load;
  const expected = await probe({ ...flags, ...plan.quantization, signal });
  const { quantization: _name, quantizationConfig: _config, ...bare } = flags;
  const { quantizeLmHead: _head, quantizeEmbeddings: _embeddings, ...stored } = bare;
  const found = await probe({ ...stored, model: dir, locate: {}, signal });
  for (const [index, value] of expected.entries()) {
    if (Object.is(value, found[index])) continue;
    const { vocabSize } = plan.decoder;
    const place = `logit ${index % vocabSize} of position ${Math.floor(index / vocabSize)}`;
    throw failed(`${place} is ${found[index]}, not ${value} as when quantized while loading`);
  }
  return `${manifest.weights.tensors.length} tensors and ${expected.length} logits are equal`;
}

/** Logits of a fixed prompt at every position, [tokens, vocab]. */
async function probe(options: LoadOptions): Promise<Float32Array> {
  const model: LoadedModel = await loadModel(options, { phase: () => undefined, warn: () => undefined });
  try {
    const step = packProbeStep(model.decoder.vocabSize, Math.min(PROBE_TOKENS, model.memory.maxModelLen));
    return (await model.runner.logits(step)).slice();
  } finally {
    await model.runner.close();
  }
}

function failed(problem: string): UserError {
  return new UserError('check_failed', `The output is not what serving the checkpoint gives: ${problem}.`, {
    suggestions: ['Run the conversion again; if it fails again, check the disk and memory of the machine.'],
  });
}
