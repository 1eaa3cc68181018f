import { FdqError, UnsupportedError, UserError } from '../errors.js';

const FETCH_AGAIN = 'Export or download the ONNX model again, with its external data files beside it.';
/** Of a file that stands for one in Git LFS. */
const LFS_POINTER = 'version https://git-lfs.github.com/spec/';
/** Looked at to tell text from protobuf, whose first fields are numbers and lengths. */
const TEXT_BYTES = 512;
/** Control characters that texts do not have. */
// eslint-disable-next-line no-control-regex
const BINARY = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffd]/;

/** The file is damaged, or refers to bytes it must not refer to. */
export function invalidModel(message: string, cause?: unknown): UserError {
  return new UserError('invalid_checkpoint', message, { cause, suggestions: [FETCH_AGAIN] });
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

export function unsupportedVersion(version: number, oldest: number, newest: number): UnsupportedError {
  return new UnsupportedError(
    'unsupported_model',
    `Expected IR version ${oldest} to ${newest} but the model has ${version}`,
    {
      suggestions: [
        version < oldest
          ? 'Export the model again with a current version of its exporter.'
          : `Export the model again for IR version ${newest} or older (ir_version of the ModelProto).`,
      ],
    },
  );
}

/** What a file that cannot be an ONNX model is instead, as a sentence. */
export function findDamage(bytes: Uint8Array): string | undefined {
  if (bytes.length === 0) return 'The file is empty';
  if (bytes.every((byte) => byte === 0)) return 'The file holds nothing but zero bytes';
  const start = Buffer.from(bytes.subarray(0, TEXT_BYTES)).toString('utf8');
  // The last character may be cut.
  if (BINARY.test(bytes.length > TEXT_BYTES ? start.slice(0, -1) : start)) return undefined;
  if (start.startsWith(LFS_POINTER)) {
    return 'The file is a pointer of Git LFS in place of the model: "git lfs pull" in its repository fetches the model';
  }
  return 'The file is text, not an ONNX model';
}

/** The error with the file it is about, and with the caller's remedy for damage. */
export function nameFile(
  error: unknown,
  { file, remedy }: { readonly file?: string; readonly remedy?: string },
): unknown {
  if (!(error instanceof FdqError) || file === undefined) return error;
  const { code, cause } = error;
  const isDamaged = code === 'invalid_checkpoint' && remedy !== undefined;
  const suggestions = isDamaged ? [remedy] : error.suggestions;
  const Kind = error instanceof UnsupportedError ? UnsupportedError : UserError;
  const message = `Cannot read the ONNX model ${JSON.stringify(file)}. ${error.message}.`;
  return new Kind(code, message, { param: file, suggestions, cause });
}
