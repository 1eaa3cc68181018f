import { fdqWriter } from './fdq-writer.js';
import { onnxWriter } from './onnx-writer.js';
import { safetensorsWriter } from './safetensors-writer.js';
import type { FormatWriter } from './writer.js';

/** Every format `fdq convert` writes, the default first; one line each. */
const WRITERS = {
  fdq: fdqWriter,
  onnx: onnxWriter,
  safetensors: safetensorsWriter,
} as const satisfies Readonly<Record<string, FormatWriter>>;

export type FormatName = keyof typeof WRITERS;

export const FORMAT_NAMES = Object.keys(WRITERS) as readonly FormatName[];

export function writerOf(format: FormatName): FormatWriter {
  return WRITERS[format];
}
