import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { BugError } from '../errors.js';
import { requestOf } from '../load/apply-quantization.js';
import type { CheckpointPlan } from '../load/plan.js';
import { writeFailure } from '../load/folder/write-problems.js';
import { produceWeights } from './produce-weights.js';
import { describeConfig } from './safetensors/describe-config.js';
import { findUnequalScales } from './safetensors/fused-scales.js';
import { holds, planTensors, type OutputPlan } from './safetensors/plan-tensors.js';
import { describeIndex, layOutShards, ShardFiles, type ShardPlan } from './safetensors/shards.js';
import { compareLogits } from './verify-logits.js';
import type { ConvertJob, FormatWriter, VerifyJob, WriteReport } from './writer.js';

/** Of config.json and the index, for the comparison with the free space. */
const TEXT_BYTES = 16 << 20;
/** Largest difference of a logit where the reciprocal of a scale is stored, which is rounded once more. */
const RECIPROCAL_TOLERANCE = 1e-3;

/** A checkpoint in the layout of compressed-tensors, or DeepSeek's for 128 x 128 tiles of FP8. */
export const safetensorsWriter: FormatWriter = {
  name: 'safetensors',
  summary: 'a checkpoint that other engines load: compressed-tensors, or fp8 for block_wise_fp8',
  estimateBytes: (plan) => layOutShards(planTensors(plan).tensors).fileBytes + TEXT_BYTES,
  destination: ({ initializers }) => ({
    bytesOf: (tensor, scheme) => (holds(scheme, tensor) ? scheme.bytes(tensor) : undefined),
    // Engines that fuse q, k and v, or gate and up, want one scheme for them.
    together: [...initializers.values()].flatMap(({ data }) =>
      data.kind === 'weight' && data.members.length > 1 ? [data.members.map(({ name }) => name)] : [],
    ),
  }),
  check: (plan) => void planTensors(plan),
  warnings: warnAbout,
  write,
  verify,
};

/** By vLLM 0.33's CompressedTensorsW4A4Fp4: it keeps the largest divisor of the matrices it fuses, for all of them. */
function warnAbout({ graph }: CheckpointPlan): readonly string[] {
  const [first, ...others] = findUnequalScales(graph, 'nvfp4');
  if (first === undefined) return [];
  const where = others.length === 0 ? first : `${first} and ${others.length} other modules`;
  return [
    `nvfp4: the checkpoint has matrices of ${where} with different tensor scales, or in different types, which vLLM ` +
      'fuses and gives one scale: it would compute other numbers. Engines that keep the matrices apart do not.',
  ];
}

async function write(job: ConvertJob): Promise<WriteReport> {
  const { plan, dir } = job;
  const output = planTensors(plan);
  const shards = layOutShards(output.tensors);
  const files = await ShardFiles.create(dir, shards);
  try {
    await writeTensors(job, output, { files, totalBytes: shards.tensorBytes });
    files.finish();
  } finally {
    await files.close();
  }
  await writeJson(path.join(dir, 'config.json'), describeConfig(plan, output));
  const index = describeIndex(shards);
  if (index !== undefined) await writeJson(path.join(dir, 'model.safetensors.index.json'), index);
  return { weightBytes: shards.tensorBytes };
}

async function writeTensors(
  { plan, runtime, threads, signal, onProgress }: ConvertJob,
  { tensors, graph, splits }: OutputPlan,
  { files, totalBytes }: { readonly files: ShardFiles; readonly totalBytes: ShardPlan['tensorBytes'] },
): Promise<void> {
  let doneBytes = 0;
  const put = async (name: string, bytes: Uint8Array): Promise<void> => {
    await files.write(name, bytes);
    doneBytes += bytes.byteLength;
    onProgress(doneBytes, totalBytes);
  };
  for (const { name, bytes } of tensors) if (bytes !== undefined) await put(name, bytes);
  await produceWeights(graph, {
    addon: runtime.addon,
    checkpoint: plan.checkpoint,
    threads,
    signal,
    write: async ({ name: source }, produced) => {
      const split = splits.get(source);
      if (split === undefined) throw new BugError(`${source} is no part of the output`);
      for (const { name, bytes } of split(produced)) await put(name, bytes);
    },
  });
}

/** Reads the folder as any stored checkpoint and compares its logits with those of the online path. */
async function verify({ plan, load, dir, signal }: VerifyJob): Promise<string> {
  const { chooseQuantization: _, ...flags } = load;
  const { quantization: _name, quantizationConfig: _config, ...bare } = flags;
  const { quantizeLmHead: _head, quantizeEmbeddings: _embeddings, requantize: _again, ...stored } = bare;
  const { kvCacheDtype } = requestOf(plan.quantization);
  const isRounded = planTensors(plan).modules.some(({ layout }) => layout.format === 'nvfp4-pack-quantized');
  const tolerance = isRounded ? RECIPROCAL_TOLERANCE : 0;
  // In bfloat16 the last bit of a scale moves inputs of later layers over the edges of roundings.
  const arithmetic = isRounded ? ({ dtype: 'float32' } as const) : {};
  const count = await compareLogits({
    expected: { ...flags, ...plan.quantization, ...arithmetic, signal },
    found: { ...stored, ...arithmetic, kvCacheDtype, model: dir, locate: {}, signal },
    tolerance,
  });
  return tolerance === 0 ? `${count} logits are equal` : `${count} logits differ by at most ${tolerance}`;
}

async function writeJson(file: string, content: object): Promise<void> {
  try {
    await writeFile(file, `${JSON.stringify(content, null, 2)}\n`, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(file, error);
  }
}
