import type { FlagTable } from './flag-row.js';
import { AUTO_FLAGS, GLOBAL_FLAGS, MEMORY_FLAGS, MODEL_FLAGS, QUANTIZATION_FLAGS } from './flags.js';

/** Flags of `fdq convert`: those of `serve` that decide what would run, and where it is written. */
export const CONVERT_FLAGS = {
  model: MODEL_FLAGS.model,
  revision: MODEL_FLAGS.revision,
  threads: MODEL_FLAGS.threads,
  offline: MODEL_FLAGS.offline,
  ...QUANTIZATION_FLAGS,
  ...AUTO_FLAGS,
  'kv-cache-dtype': MEMORY_FLAGS['kv-cache-dtype'],
  requantize: {
    kind: 'boolean',
    group: 'QUANTIZATION',
    summary: 'Quantize weights anew that the checkpoint stores quantized; rounding twice loses accuracy.',
    commandLineOnly: true,
  },
  output: {
    kind: 'text',
    group: 'OUTPUT',
    char: 'o',
    summary: 'Folder to write; it appears whole or not at all.',
    commandLineOnly: true,
  },
  format: {
    kind: 'choice',
    group: 'OUTPUT',
    summary:
      'What is written: fdq, the folder that fdq serve maps; onnx, a model for any ONNX Runtime; safetensors, a checkpoint that other engines load.',
    options: ['fdq', 'onnx', 'safetensors'],
    default: 'fdq',
  },
  force: {
    kind: 'boolean',
    group: 'OUTPUT',
    summary: 'Replace the output folder when it holds a model.',
    commandLineOnly: true,
  },
  verify: {
    kind: 'boolean',
    group: 'OUTPUT',
    summary:
      'Compare the result with the model quantized while loading before the folder appears; exit 4 when it differs.',
    commandLineOnly: true,
  },
  ...GLOBAL_FLAGS,
} as const satisfies FlagTable;
