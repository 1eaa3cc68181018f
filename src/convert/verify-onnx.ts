import { UserError } from '../errors.js';
import { loadModel } from '../load/load-model.js';
import { packProbeStep } from '../load/warm-up.js';
import { loadRuntime } from '../runtime/load-addon.js';
import { openOnnx } from './onnx/open-onnx.js';
import type { VerifyJob } from './writer.js';

/** Tokens of the prompt both models get. */
const PROBE_TOKENS = 32;
/** Least cosine of a position's logits: rounded inputs may fall on the other side of a tie. */
const COSINE = 0.99;

/**
 * Runs the written model on standard operators and the checkpoint quantized while loading, both in float32, on one
 * prompt. Takes the memory of both, one after the other.
 * @throws UserError `check_failed` naming the first position whose logits point elsewhere
 */
export async function verifyOnnx({ plan, load, dir, signal }: VerifyJob): Promise<string> {
  const { decoder, quantization } = plan;
  const step = packProbeStep(decoder.vocabSize, PROBE_TOKENS);
  const { chooseQuantization: _, ...flags } = load;
  const options = { ...flags, ...quantization, dtype: 'float32', kvCacheDtype: 'float32', signal } as const;
  const model = await loadModel(options, { phase: () => undefined, warn: () => undefined });
  const expected = await model.runner.logits(step).then((logits) => logits.slice());
  await model.runner.close();
  const written = await openOnnx(dir, decoder, { runtime: loadRuntime(), threads: load.threads });
  const found = await written.logits([...step.tokenIds]);
  await written.close();
  let worst = 1;
  for (let position = 0; position < PROBE_TOKENS; position++) {
    const row = [position * decoder.vocabSize, (position + 1) * decoder.vocabSize] as const;
    const similarity = cosine(expected.subarray(...row), found.subarray(...row));
    // A NaN is no similarity either.
    if (!(similarity >= COSINE)) throw failed(position, similarity);
    worst = Math.min(worst, similarity);
  }
  return `the logits of ${PROBE_TOKENS} positions have a cosine of at least ${worst.toFixed(6)}`;
}

function cosine(a: Float32Array, b: Float32Array): number {
  let dot = 0;
  let squareA = 0;
  let squareB = 0;
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number;
    const y = b[i] as number;
    dot += x * y;
    squareA += x * x;
    squareB += y * y;
  }
  return dot / Math.sqrt(squareA * squareB);
}

function failed(position: number, similarity: number): UserError {
  return new UserError(
    'check_failed',
    `The output is not what serving the checkpoint gives: the logits of position ${position} have a cosine of ${similarity}.`,
    {
      suggestions: ['Run the conversion again; if it fails again, check the disk and memory of the machine.'],
    },
  );
}
