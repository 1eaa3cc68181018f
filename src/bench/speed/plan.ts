import { FdqError, UserError } from '../../errors.js';
import { locateModel, type LocatedModel } from '../../hub/locate.js';
import { requestOf, type QuantizationFlags } from '../../load/apply-quantization.js';
import { planLocated, type LoadOptions, type PlannedModel } from '../../load/load-model.js';
import { KV_BLOCK_SIZE, kvBytesPerToken } from '../../runtime/kv-layout.js';
import { digestCheckpoint } from '../checkpoint-digest.js';
import { labelScheme } from '../scheme-label.js';
import { blocksOf, expandCases, longestSequence } from './cases.js';
import type { SpeedCase, SpeedOptions } from './options.js';
import { streamedWeightBytes, type StreamedModel } from './streamed-bytes.js';

/** Steps take at least this many tokens, as in `fdq serve`. */
const BATCHED_TOKENS = 512;

/** What can be sent to another process. */
export type SpeedLoadOptions = Omit<LoadOptions, 'chooseQuantization' | 'cache' | 'signal'>;

/** A model that is loaded once, for all cases. */
export interface SpeedModel extends StreamedModel {
  /** `wint4:g128 kv=bfloat16 t=2`; unique in a plan. */
  readonly name: string;
  readonly load: SpeedLoadOptions;
  readonly threads: number;
  readonly weightBytes: number;
  readonly parameters: Readonly<Record<string, string | number | null>>;
}

export interface SpeedPlan {
  readonly models: readonly SpeedModel[];
  readonly cases: readonly SpeedCase[];
  readonly isa: string;
  readonly onnxruntime: string;
  /** Whole sentences. */
  readonly warnings: readonly string[];
}

/** The mistakes that flags alone can show. @throws UserError `usage`, `unknown_scheme`, `invalid_config` */
export function checkSpeedOptions(options: SpeedOptions): readonly SpeedCase[] {
  for (const scheme of options.schemes) {
    for (const kvCacheDtype of options.kvCacheDtypes) {
      requestOf({ ...quantizationOf(options, scheme), kvCacheDtype });
    }
  }
  return expandCases(options);
}

/**
 * Decides about every model to load from headers alone, memory included.
 * @throws UserError `out_of_memory`, `model_not_found`, `unsupported_model` and what planning a model throws
 */
export async function planSpeed(options: SpeedOptions): Promise<SpeedPlan> {
  const cases = checkSpeedOptions(options);
  const located = await locateModel(options.model, options.locate);
  const models = new Map<string, SpeedModel>();
  const warnings = new Set<string>();
  let digest: string | undefined;
  let machine = { isa: '', onnxruntime: '' };
  for (const scheme of options.schemes) {
    for (const kvCacheDtype of options.kvCacheDtypes) {
      for (const threads of new Set(options.threads)) {
        const load = loadOptions(options, cases, {
          ...quantizationOf(options, scheme),
          kvCacheDtype,
          model: located.dir,
          threads,
        });
        const planned = await planModel(located, load, warnings);
        checkLengths(cases, planned);
        digest ??= await digestCheckpoint(planned.checkpoint);
        machine = { isa: planned.isa, onnxruntime: planned.runtime.onnxruntime.version };
        const model = describeModel(options, planned, { load, scheme, digest });
        if (models.has(model.name)) warnings.add(`${model.name} was asked for twice and is measured once.`);
        else models.set(model.name, model);
      }
    }
  }
  return { models: [...models.values()], cases, ...machine, warnings: [...warnings] };
}

function quantizationOf(options: SpeedOptions, scheme: string | undefined): QuantizationFlags {
  return { ...options.quantization, ...(scheme === undefined ? {} : { quantization: scheme }) };
}

type ModelChoice = QuantizationFlags & Pick<LoadOptions, 'kvCacheDtype' | 'model' | 'threads'>;

function loadOptions(
  options: SpeedOptions,
  cases: readonly SpeedCase[],
  choice: ModelChoice,
): SpeedLoadOptions {
  const maxNumSeqs = Math.max(...cases.map(({ sequences }) => sequences));
  const maxModelLen = Math.max(...cases.map(longestSequence));
  return {
    ...choice,
    dtype: options.dtype,
    ...(options.isa === undefined ? {} : { isa: options.isa }),
    memory: {
      utilization: options.utilization,
      numBlocks: Math.max(...cases.map(blocksOf), Math.ceil(maxModelLen / KV_BLOCK_SIZE)),
      maxNumSeqs,
      maxBatchedTokens: Math.max(options.maxBatchedTokens ?? BATCHED_TOKENS, maxNumSeqs),
    },
  };
}

/** Too little memory is said in the words of this command. */
async function planModel(
  located: LocatedModel,
  load: SpeedLoadOptions,
  warnings: Set<string>,
): Promise<PlannedModel> {
  const observer = { phase: () => undefined, warn: (line: string) => void warnings.add(line) };
  try {
    return await planLocated(located, load, observer);
  } catch (error) {
    if (!(error instanceof FdqError) || error.code !== 'out_of_memory') throw error;
    throw new UserError('out_of_memory', error.message, {
      cause: error,
      suggestions: [
        'Keep less in the cache: fewer sequences (-b), less depth (-d), shorter prompts (-p) or answers (-n).',
        'Use fewer bytes: --quantization wint8 or wint4, --kv-cache-dtype int8 or int4.',
        'Allow more of the memory: --gpu-memory-utilization 0.95.',
      ],
    });
  }
}

function checkLengths(cases: readonly SpeedCase[], { decoder }: PlannedModel): void {
  const longest = Math.max(...cases.map(longestSequence));
  if (longest <= decoder.maxPositions) return;
  throw new UserError(
    'usage',
    `The model addresses ${decoder.maxPositions} positions, but a sequence of this measurement has ${longest}.`,
    { param: 'n-depth', suggestions: ['Lower -d, -p or -n.'] },
  );
}

function describeModel(
  options: SpeedOptions,
  planned: PlannedModel,
  chosen: {
    readonly load: SpeedLoadOptions;
    readonly scheme: string | undefined;
    readonly digest: string;
  },
): SpeedModel {
  const { arithmetic, decoder, memory, weightBytes, checkpoint } = planned;
  const { load, digest } = chosen;
  const { threads } = load;
  const quantization = labelScheme(planned, quantizationOf(options, chosen.scheme));
  const dtype = options.dtype === 'auto' ? '' : ` dtype=${options.dtype}`;
  return {
    name: `${quantization} kv=${arithmetic.kv}${dtype} t=${threads}`,
    load,
    threads,
    weightBytes,
    streamedWeightBytes: streamedWeightBytes(planned.graph),
    kvBytesPerToken: kvBytesPerToken(decoder, arithmetic.kv),
    ...(decoder.slidingWindow === undefined ? {} : { slidingWindow: decoder.slidingWindow }),
    parameters: {
      model: options.model,
      revision: checkpoint.revision ?? null,
      checkpoint: digest,
      architecture: decoder.architecture,
      scheme: quantization,
      kv_cache_dtype: arithmetic.kv,
      compute_dtype: arithmetic.compute,
      threads,
      max_num_batched_tokens: memory.maxBatchedTokens,
    },
  };
}
