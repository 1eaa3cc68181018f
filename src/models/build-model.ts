import type { DecoderModel } from './architecture.js';
import { checkTensors, type CheckpointTensor } from './checkpoint-weights.js';
import { loadArchitecture } from './registry.js';

/**
 * The float graph of a checkpoint, from its config.json and its headers; no weight is read.
 * @throws UserError `invalid_checkpoint`, UnsupportedError `unsupported_architecture` or `unsupported_model`.
 */
export async function buildModel(
  config: Readonly<Record<string, unknown>>,
  tensors: ReadonlyMap<string, CheckpointTensor>,
): Promise<DecoderModel> {
  const architecture = await loadArchitecture(config);
  const parsed = architecture.parseConfig(config);
  const { weights, unused } = checkTensors(architecture.tensors(parsed), parsed, tensors);
  return { ...architecture.build(parsed, weights), config: parsed, unusedTensors: unused };
}
