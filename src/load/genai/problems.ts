import { UnsupportedError, UserError } from '../../errors.js';
import type { GraphNode } from '../../graph/ir.js';

const SUGGESTIONS = [
  'Serve the Hugging Face checkpoint the model was exported from.',
  'Or export a float32 decoder for CPU: python -m onnxruntime_genai.models.builder -p fp32 -e cpu.',
];

/** A node of an ONNX decoder that cannot become one of fdq's; `problem` continues "it ...". */
export function refuseNode(
  node: GraphNode,
  problem: string,
  suggestions: readonly string[] = SUGGESTIONS,
): UnsupportedError {
  const operator = node.domain === '' ? node.opType : `${node.domain}.${node.opType}`;
  return new UnsupportedError(
    'unsupported_model',
    `fdq cannot serve the node "${node.name}" (${operator}) of the ONNX model: it ${problem}.`,
    { param: node.name, suggestions },
  );
}

/** The graph as a whole is not one fdq serves; `problem` is a clause. */
export function refuseModel(problem: string): UnsupportedError {
  return new UnsupportedError('unsupported_model', `fdq cannot serve the ONNX model: ${problem}.`, {
    param: 'model',
    suggestions: SUGGESTIONS,
  });
}

/** What genai_config.json says does not fit; `problem` is a clause. */
export function refuseConfig(problem: string): UserError {
  return new UserError('invalid_checkpoint', `genai_config.json does not describe a decoder: ${problem}.`, {
    param: 'genai_config.json',
    suggestions: ['Export the model again: python -m onnxruntime_genai.models.builder.'],
  });
}
