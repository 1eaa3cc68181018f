import { UnsupportedError, UserError } from '../errors.js';

/** The file is damaged, or refers to bytes it must not refer to. */
export function invalidModel(message: string, cause?: unknown): UserError {
  return new UserError('invalid_checkpoint', message, {
    cause,
    suggestions: ['Export or download the ONNX model again, with its external data files beside it.'],
  });
}

/** The file is legal ONNX that fdq does not handle. */
export function unsupportedModel(message: string): UnsupportedError {
  return new UnsupportedError('unsupported_model', message, {
    suggestions: [
      'Supported are graphs of dense tensors (float 64/32/16/bf16/e4m3/e2m1, int 64/32/8/4, uint 8/4, bool).',
      'Inline functions before converting, or start from the Hugging Face checkpoint.',
    ],
  });
}
