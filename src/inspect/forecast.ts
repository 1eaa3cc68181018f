import { UserError } from '../errors.js';
import type { CheckpointPlan } from '../load/plan.js';
import { planMemory, WORKSPACE_BYTES, type MemoryRequest } from '../load/memory-plan.js';
import { KV_BLOCK_SIZE } from '../runtime/kv-layout.js';
import type { MemoryForecast } from './report.js';

const MIB = 1024 ** 2;

/** Node, the addon, ONNX Runtime and its session: 226 MiB beside the weights of a 0.6 B model, rounded up. */
const PROCESS_BYTES = 256 * MIB;
/** What a thread holds of a tensor while it quantizes: a chunk of half a MiB, or 128 rows where those are more. */
const CHUNK_BYTES = MIB / 2;
const CHUNK_ROWS = 128;

/** The machine and what the command line says about its memory. */
export type MemorySettings = Omit<
  MemoryRequest,
  'weightBytes' | 'kvBytesPerToken' | 'vocabSize' | 'modelMaxLen'
> & { readonly threads: number };

/** Memory that loading and serving the plan will take at most, from headers alone. */
export function forecastMemory(
  plan: Pick<CheckpointPlan, 'weightBytes' | 'decoder' | 'layers'>,
  kvBytesPerToken: number,
  settings: MemorySettings,
): MemoryForecast {
  const { weightBytes, decoder } = plan;
  const { threads, ...request } = settings;
  const base = {
    availableBytes: request.availableBytes,
    usableBytes: Math.floor(request.availableBytes * request.utilization),
    weightBytes,
    peakLoadBytes: weightBytes + PROCESS_BYTES + threads * chunkBytes(plan.layers),
  };
  try {
    const { kvBytes, numBlocks } = planMemory({
      ...request,
      weightBytes,
      kvBytesPerToken,
      vocabSize: decoder.vocabSize,
      modelMaxLen: decoder.maxPositions,
    });
    return {
      ...base,
      peakServiceBytes: weightBytes + WORKSPACE_BYTES + kvBytes,
      kvCacheBytes: kvBytes,
      kvCacheTokens: numBlocks * KV_BLOCK_SIZE,
      fits: base.peakLoadBytes <= base.usableBytes,
      problem: null,
    };
  } catch (error) {
    if (!(error instanceof UserError) || error.code !== 'out_of_memory') throw error;
    const kvBytes = request.kvCacheBytes ?? (request.numBlocks ?? 1) * KV_BLOCK_SIZE * kvBytesPerToken;
    return {
      ...base,
      peakServiceBytes: weightBytes + WORKSPACE_BYTES + kvBytes,
      kvCacheBytes: kvBytes,
      kvCacheTokens: Math.floor(kvBytes / kvBytesPerToken),
      fits: false,
      problem: error.message,
    };
  }
}

/** Whether weights of that size leave room for the workspace and one block of cache. */
export function fitsWeights(weightBytes: number, kvBytesPerToken: number, settings: MemorySettings): boolean {
  const needed = weightBytes + WORKSPACE_BYTES + KV_BLOCK_SIZE * kvBytesPerToken;
  return needed <= settings.availableBytes * settings.utilization;
}

function chunkBytes(layers: CheckpointPlan['layers']): number {
  return layers.reduce((largest, { shape, bytesBefore }) => {
    const [rows = 1] = shape;
    return Math.max(largest, (bytesBefore / Math.max(1, rows)) * Math.min(rows, CHUNK_ROWS));
  }, CHUNK_BYTES);
}
