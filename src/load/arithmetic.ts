import type { Graph } from '../graph/ir.js';
import type { IsaName, KvDataType } from '../runtime/addon.js';

export type DtypeChoice = 'auto' | 'float32' | 'bfloat16';

/** How numbers travel: the inputs of linear layers, and keys and values in the cache. */
export interface Arithmetic {
  readonly compute: 'float32' | 'bfloat16';
  readonly kv: KvDataType;
}

/**
 * `auto` computes in bfloat16 where the CPU multiplies it and the checkpoint is stored in it. The cache is bfloat16
 * unless something else is asked for, by itself or as float32 by `dtype`.
 */
export function chooseArithmetic(choice: {
  /** See `isBfloat16Model`. */
  readonly isBfloat16: boolean;
  readonly dtype: DtypeChoice;
  readonly kv: 'auto' | KvDataType;
  readonly isa: IsaName;
}): Arithmetic {
  const multipliesBf16 = choice.isa === 'avx512_bf16' || choice.isa === 'amx';
  const compute =
    choice.dtype === 'auto' ? (multipliesBf16 && choice.isBfloat16 ? 'bfloat16' : 'float32') : choice.dtype;
  const kv = choice.kv === 'auto' ? (choice.dtype === 'float32' ? 'float32' : 'bfloat16') : choice.kv;
  return { compute, kv };
}

/** Whether most weight bytes of a float graph are stored as bfloat16. */
export function isBfloat16Model(graph: Graph): boolean {
  let bfloat16 = 0;
  let all = 0;
  for (const { data } of graph.initializers.values()) {
    if (data.kind !== 'weight') continue;
    for (const member of data.members) {
      all += member.byteLength;
      if (member.dataType === 'bfloat16') bfloat16 += member.byteLength;
    }
  }
  return bfloat16 * 2 > all;
}
