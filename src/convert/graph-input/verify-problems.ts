import { UnsupportedError, UserError } from '../../errors.js';

/** `--verify` of a model that inputs cannot be made up for. */
export function refuseInputs(why: string, cause?: unknown): UnsupportedError {
  return new UnsupportedError('unsupported_model', `--verify cannot make up inputs for this model: ${why}.`, {
    param: '--verify',
    suggestions: ['Convert without --verify, and compare both models on inputs of yours.'],
    cause,
  });
}

/** The written model does not compute what the given one does. */
export function outputDiffers(what: string, cause?: unknown): UserError {
  return new UserError('check_failed', `The written model is not the one that was given: ${what}.`, {
    suggestions: [
      'Try a scheme of more bits; if that fails too, check the disk and memory of the machine, and convert again.',
    ],
    cause,
  });
}
