import { counted } from '../counted.js';
import type { Graph } from '../graph/ir.js';
import type { Checkpoint, FileIdentity } from '../hub/checkpoint.js';
import type { DecoderInfo } from '../models/architecture.js';
import { buildModel } from '../models/build-model.js';
import type { QuantizationPlan } from '../quant/plan.js';
import type { LayerReport } from '../quant/report.js';
import type { QuantScheme, WeightTensor } from '../quant/scheme.js';
import type { IsaName } from '../runtime/addon.js';
import type { ErrorSums } from './weight-meter.js';
import { applyQuantization, requestOf, weightBytesOf, type QuantizationFlags } from './apply-quantization.js';
import { chooseArithmetic, isBfloat16Model, type Arithmetic, type DtypeChoice } from './arithmetic.js';

/** Files that weights are read from, as they were when their headers were checked. */
export interface WeightFiles {
  readonly files: readonly FileIdentity[];
  /** Weights from inside of a model file, under the name of a file that sources give for them. */
  readonly inline?: { readonly file: string; readonly bytes: Uint8Array };
}

/** Where quantized layers go that fdq itself is not to run. */
export interface Destination {
  /** What it takes to hold a tensor; undefined where it holds no such scheme. */
  bytesOf(tensor: WeightTensor, scheme: QuantScheme): number | undefined;
  /** Bytes of all weights under these flags; absent: what this process would hold. */
  weigh?(flags: QuantizationFlags): number;
  /** Tensors that must have the same scheme as each other. */
  readonly together?: readonly (readonly string[])[];
}

export interface PlanOptions extends QuantizationFlags {
  readonly dtype: DtypeChoice;
  /**
   * Decides about the layers of the float graph in place of the flags, e.g. from measured errors.
   * @param destination absent: this process
   */
  readonly chooseQuantization?: (
    weights: WeightFiles,
    graph: Graph,
    destination?: Destination,
  ) => Promise<QuantizationFlags>;
}

/** What it takes to serve a model, whatever the machine's memory and wherever its weights come from. */
export interface ServingPlan {
  readonly checkpoint: Checkpoint;
  readonly decoder: DecoderInfo;
  readonly graph: Graph;
  readonly scheme: string;
  readonly layers: readonly LayerReport[];
  readonly weightBytes: number;
  readonly arithmetic: Arithmetic;
  /** Whole sentences, for the user. */
  readonly warnings: readonly string[];
  /** What quantizing each tensor lost, by its name, where that was measured before. */
  readonly errors?: ReadonlyMap<string, ErrorSums>;
}

/** What headers and flags say about a checkpoint. */
export interface CheckpointPlan extends ServingPlan {
  /** Before quantization. */
  readonly floatGraph: Graph;
  /** What was planned from, `chooseQuantization` included. */
  readonly quantization: QuantizationFlags;
  readonly plan: QuantizationPlan;
}

/**
 * Decides about every layer of a checkpoint from its headers; no weight is read, unless `chooseQuantization` does,
 * and no session is made.
 * @param isa instruction set the model will run on
 */
export async function planCheckpoint(
  checkpoint: Checkpoint,
  options: PlanOptions,
  isa: IsaName,
): Promise<CheckpointPlan> {
  const model = await buildModel(checkpoint.config, checkpoint.tensors);
  const unused = model.unusedTensors.length > 0 ? [describeUnused(model.unusedTensors)] : [];
  const quantization = (await options.chooseQuantization?.(checkpoint, model.graph)) ?? pickFlags(options);
  // The type of the cache may be said by a flag, a key or the C part of a precision name.
  const { kvCacheDtype } = requestOf(quantization);
  const isBfloat16 = isBfloat16Model(model.graph);
  const arithmetic = chooseArithmetic({ isBfloat16, dtype: options.dtype, kv: kvCacheDtype, isa });
  const quantized = applyQuantization(model.graph, quantization, arithmetic);
  return {
    checkpoint,
    decoder: model.info,
    floatGraph: model.graph,
    ...quantized,
    quantization,
    weightBytes: weightBytesOf(quantized.graph),
    arithmetic,
    warnings: [...checkpoint.warnings, ...unused, ...quantized.plan.warnings],
  };
}

function pickFlags(options: PlanOptions): QuantizationFlags {
  const { quantization, quantizationConfig, quantizeLmHead, quantizeEmbeddings, kvCacheDtype } = options;
  const { offline, requantize } = options;
  return {
    ...(quantization === undefined ? {} : { quantization }),
    ...(quantizationConfig === undefined ? {} : { quantizationConfig }),
    ...(quantizeLmHead === undefined ? {} : { quantizeLmHead }),
    ...(quantizeEmbeddings === undefined ? {} : { quantizeEmbeddings }),
    ...(kvCacheDtype === undefined ? {} : { kvCacheDtype }),
    ...(offline === undefined ? {} : { offline }),
    ...(requantize === undefined ? {} : { requantize }),
  };
}

function describeUnused(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ');
  return `${counted(names.length, 'tensor of the checkpoint is', 'tensors of the checkpoint are')} not used by its architecture: ${shown}${names.length > 3 ? ', ...' : ''}.`;
}
