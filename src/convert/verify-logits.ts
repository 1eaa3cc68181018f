import { UserError } from '../errors.js';
import { loadModel, type LoadedModel, type LoadOptions } from '../load/load-model.js';
import { packProbeStep } from '../load/warm-up.js';

/** Tokens of the prompt both models get. */
const PROBE_TOKENS = 32;

/** Two ways to load what must be the same model. */
export interface LogitsPair {
  readonly expected: LoadOptions;
  readonly found: LoadOptions;
  /** Largest difference of a logit; 0: they are equal bit for bit. */
  readonly tolerance: number;
}

/**
 * Compares the logits of a fixed prompt at every position. Takes the memory of serving the model.
 * @returns how many logits were compared
 * @throws UserError `check_failed` naming the first logit that differs
 */
export async function compareLogits({ expected, found, tolerance }: LogitsPair): Promise<number> {
  const { logits, vocabSize } = await probe(expected);
  const others = (await probe(found)).logits;
  for (const [index, value] of logits.entries()) {
    const other = others[index] ?? NaN;
    if (Object.is(value, other) || Math.abs(value - other) <= tolerance) continue;
    const place = `logit ${index % vocabSize} of position ${Math.floor(index / vocabSize)}`;
    throw checkFailed(`${place} is ${other}, not ${value} as when quantized while loading`);
  }
  return logits.length;
}

/** @returns logits [tokens, vocab] */
async function probe(
  options: LoadOptions,
): Promise<{ readonly logits: Float32Array; readonly vocabSize: number }> {
  const model: LoadedModel = await loadModel(options, { phase: () => undefined, warn: () => undefined });
  try {
    const { vocabSize } = model.decoder;
    const step = packProbeStep(vocabSize, Math.min(PROBE_TOKENS, model.memory.maxModelLen));
    return { logits: (await model.runner.logits(step)).slice(), vocabSize };
  } finally {
    await model.runner.close();
  }
}

export function checkFailed(problem: string): UserError {
  return new UserError('check_failed', `The output is not what serving the checkpoint gives: ${problem}.`, {
    suggestions: ['Run the conversion again; if it fails again, check the disk and memory of the machine.'],
  });
}
