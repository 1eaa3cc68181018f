import { byteLengthOf } from '../../graph/data-types.js';
import type { Graph } from '../../graph/ir.js';
import type { SpeedCase } from './options.js';

/** They read a few rows of their table. */
const LOOKUPS: ReadonlySet<string> = new Set(['Gather', 'QuantGather']);

/** Bytes of weights that every decode step reads: all but tables that are only looked up, such as an untied embedding. */
export function streamedWeightBytes(graph: Graph): number {
  const streamed = new Set<string>();
  for (const { opType, inputs } of graph.nodes) {
    if (!LOOKUPS.has(opType)) for (const input of inputs) streamed.add(input);
  }
  let bytes = 0;
  for (const { name, data, dataType, shape } of graph.initializers.values()) {
    if (data.kind !== 'inline' && streamed.has(name)) bytes += byteLengthOf(dataType, shape);
  }
  return bytes;
}

/** What the bytes of a decode step depend on. */
export interface StreamedModel {
  readonly streamedWeightBytes: number;
  readonly kvBytesPerToken: number;
  /** Positions further back are not read; absent: all are. */
  readonly slidingWindow?: number;
}

/** Bytes that a decode step of a case must read, on average over its steps: weights once, the cache of every sequence. */
export function stepBytes(model: StreamedModel, { depth, steps, sequences }: SpeedCase): number {
  const window = model.slidingWindow ?? Infinity;
  let positions = 0;
  // Two tokens are in the cache beyond the depth when the first step that counts attends.
  for (let step = 0; step < steps; step++) positions += Math.min(window, depth + 2 + step);
  return model.streamedWeightBytes + (sequences * model.kvBytesPerToken * positions) / steps;
}
