import { UserError } from '../errors.js';
import { KV_BLOCK_SIZE } from '../runtime/kv-layout.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

/** KV cache taken when nothing is asked for and more would fit; the default of vLLM's CPU backend. */
const DEFAULT_KV_BYTES = 4 * GIB;
/** Node, ONNX Runtime and the activations of a step. */
export const WORKSPACE_BYTES = 400 * MIB;
/** Logits rows beyond one a sequence (prompt logprobs) stop here. */
const LOGITS_BYTES = 64 * MIB;
const DEFAULT_MAX_NUM_SEQS = 64;
const DEFAULT_MAX_BATCHED_TOKENS = 512;

export interface MemoryRequest {
  readonly availableBytes: number;
  /** Share of the available memory that may be used, (0, 1]. */
  readonly utilization: number;
  readonly weightBytes: number;
  /** Over all layers. */
  readonly kvBytesPerToken: number;
  readonly vocabSize: number;
  /** Longest sequence the model was made for. */
  readonly modelMaxLen: number;
  readonly kvCacheBytes?: number;
  readonly numBlocks?: number;
  readonly maxModelLen?: number;
  readonly maxNumSeqs?: number;
  readonly maxBatchedTokens?: number;
}

export interface MemoryPlan {
  readonly numBlocks: number;
  readonly kvBytes: number;
  readonly maxModelLen: number;
  readonly maxNumSeqs: number;
  readonly maxBatchedTokens: number;
  readonly maxLogitRows: number;
}

/**
 * Divides the machine's memory before a weight is read.
 * @throws UserError `out_of_memory` with the figures when weights and cache do not fit; `usage` when maxModelLen exceeds
 *   the model's own limit, or a cache of the size asked for does not hold it.
 */
export function planMemory(request: MemoryRequest): MemoryPlan {
  const { modelMaxLen } = request;
  if (request.maxModelLen !== undefined && request.maxModelLen > modelMaxLen) {
    throw new UserError(
      'usage',
      `Expected --max-model-len to be at most the model's ${modelMaxLen} positions but received ${request.maxModelLen}.`,
      { param: '--max-model-len', suggestions: [`Pass --max-model-len ${modelMaxLen} or less.`] },
    );
  }
  const bytesPerBlock = request.kvBytesPerToken * KV_BLOCK_SIZE;
  checkCacheSize(request, bytesPerBlock);
  const budget =
    Math.floor(request.availableBytes * request.utilization) - request.weightBytes - WORKSPACE_BYTES;
  const numBlocks = chooseNumBlocks(request, budget, bytesPerBlock);
  const tokens = numBlocks * KV_BLOCK_SIZE;
  const maxNumSeqs = request.maxNumSeqs ?? DEFAULT_MAX_NUM_SEQS;
  const maxBatchedTokens = Math.max(request.maxBatchedTokens ?? DEFAULT_MAX_BATCHED_TOKENS, maxNumSeqs);
  const affordableRows = Math.floor(LOGITS_BYTES / (4 * request.vocabSize));
  return {
    numBlocks,
    kvBytes: numBlocks * bytesPerBlock,
    maxModelLen: request.maxModelLen ?? Math.min(modelMaxLen, tokens),
    maxNumSeqs,
    maxBatchedTokens,
    maxLogitRows: Math.max(maxNumSeqs, Math.min(maxBatchedTokens, affordableRows)),
  };
}

/** A cache whose size was asked for holds a block, and the length that was asked for. */
function checkCacheSize(
  { numBlocks, kvCacheBytes, maxModelLen }: MemoryRequest,
  bytesPerBlock: number,
): void {
  const blocks = Math.ceil((maxModelLen ?? 1) / KV_BLOCK_SIZE);
  const what =
    maxModelLen === undefined
      ? `one block of ${KV_BLOCK_SIZE} tokens`
      : `the ${maxModelLen} tokens of --max-model-len`;
  if (numBlocks !== undefined) {
    if (numBlocks < blocks) throw tooFew('num-gpu-blocks-override', [blocks, numBlocks], `for ${what}`);
  } else if (kvCacheBytes !== undefined && kvCacheBytes < blocks * bytesPerBlock) {
    throw tooFew('kv-cache-memory', [blocks * bytesPerBlock, kvCacheBytes], `bytes for ${what}`);
  }
}

function tooFew(flag: string, [needed, given]: readonly [number, number], what: string): UserError {
  return new UserError(
    'usage',
    `Expected --${flag} to be at least ${needed} ${what} but received ${given}.`,
    {
      param: flag,
      suggestions: [
        `Pass --${flag} ${needed} or more, or leave it out: the cache then gets what the weights leave.`,
      ],
    },
  );
}

/**
 * What to tell about a cache whose size was asked for and that shortens the context, unless its length was asked for
 * too; undefined where nothing is lost.
 */
export function describeShortContext(
  { maxModelLen }: Pick<MemoryPlan, 'maxModelLen'>,
  request: Pick<
    MemoryRequest,
    'numBlocks' | 'kvCacheBytes' | 'maxModelLen' | 'modelMaxLen' | 'kvBytesPerToken'
  >,
): string | undefined {
  const { numBlocks, kvCacheBytes, modelMaxLen } = request;
  const isAskedFor = numBlocks !== undefined || kvCacheBytes !== undefined;
  if (!isAskedFor || request.maxModelLen !== undefined || maxModelLen >= modelMaxLen) return undefined;
  const blocks = Math.ceil(modelMaxLen / KV_BLOCK_SIZE);
  const full =
    numBlocks === undefined
      ? `--kv-cache-memory ${blocks * KV_BLOCK_SIZE * request.kvBytesPerToken}`
      : `--num-gpu-blocks-override ${blocks}`;
  return (
    `The context is shortened to ${maxModelLen} of the model's ${modelMaxLen} tokens, as many as the KV cache asked for ` +
    `holds; all of them take ${full}. --max-model-len ${maxModelLen} says that it is meant so.`
  );
}

function chooseNumBlocks(request: MemoryRequest, budget: number, bytesPerBlock: number): number {
  if (request.numBlocks !== undefined) {
    if (request.numBlocks * bytesPerBlock > budget) {
      throw tooSmall(request, budget, request.numBlocks * bytesPerBlock);
    }
    return request.numBlocks;
  }
  const needed = Math.ceil((request.maxModelLen ?? 1) / KV_BLOCK_SIZE) * bytesPerBlock;
  // More than every sequence at full length can use is never asked for.
  const longest = Math.min(request.maxModelLen ?? request.modelMaxLen, request.modelMaxLen);
  const useful =
    (request.maxNumSeqs ?? DEFAULT_MAX_NUM_SEQS) * Math.ceil(longest / KV_BLOCK_SIZE) * bytesPerBlock;
  const wanted = request.kvCacheBytes ?? Math.max(needed, Math.min(DEFAULT_KV_BYTES, budget, useful));
  const numBlocks = Math.floor(wanted / bytesPerBlock);
  if (wanted > budget || numBlocks < 1) throw tooSmall(request, budget, Math.max(wanted, bytesPerBlock));
  return numBlocks;
}

function tooSmall(request: MemoryRequest, budget: number, kvBytes: number): UserError {
  const gib = (bytes: number): string => `${(bytes / GIB).toFixed(2)} GiB`;
  return new UserError(
    'out_of_memory',
    `The model does not fit: ${gib(request.availableBytes)} of memory are available and ` +
      `${(request.utilization * 100).toFixed(0)} % of that may be used, but the weights take ${gib(request.weightBytes)}, ` +
      `the workspace ${gib(WORKSPACE_BYTES)} and the KV cache ${gib(kvBytes)} (${gib(Math.max(0, budget))} are left for it).`,
    {
      suggestions: [
        'Use fewer bytes a weight: --quantization wint8 or wint4.',
        'Shorten the context: --max-model-len 4096, or size the cache: --kv-cache-memory 512MiB.',
        'Allow more of the memory: --gpu-memory-utilization 0.95.',
      ],
    },
  );
}
