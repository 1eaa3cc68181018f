import type { Graph, WeightSource } from '../graph/ir.js';
import { applyQuantization, weightBytesOf, type QuantizationFlags } from '../load/apply-quantization.js';
import type { CheckpointPlan } from '../load/plan.js';
import { fusedWith } from '../quant/linear-layers.js';
import type { QuantizationPlan } from '../quant/plan.js';
import type { LayerReport } from '../quant/report.js';
import { splitFlags } from './base-flags.js';

/** Layers that some scheme may be chosen for, everything else about the flags kept, and the bytes of all others. */
export interface FreeLayers {
  readonly layers: readonly LayerReport[];
  readonly fixedBytes: number;
  /** Flags that give all of them the scheme `PROBE`, and what was planned from them. */
  readonly probe: { readonly flags: QuantizationFlags; readonly plan: QuantizationPlan };
}

/** The scheme that stands for any while it is found out which layers may be quantized. */
export const PROBE = 'wint8';

/** @returns undefined where flags give layers schemes of their own */
export function findFreeLayers(
  plan: Pick<CheckpointPlan, 'floatGraph' | 'arithmetic' | 'quantization'>,
): FreeLayers | undefined {
  const { rest, schemeKeys } = splitFlags(plan.quantization);
  if (schemeKeys.length > 0) return undefined;
  const flags = { ...rest, quantization: PROBE };
  const probe = applyQuantization(plan.floatGraph, flags, plan.arithmetic);
  const quantized = probe.layers.filter(({ scheme }) => scheme === PROBE);
  const layers = [...new Map(quantized.map((layer) => [layer.tensor, layer])).values()];
  const freeBytes = layers.reduce((sum, { bytesAfter }) => sum + bytesAfter, 0);
  return {
    layers,
    fixedBytes: weightBytesOf(probe.graph) - freeBytes,
    probe: { flags, plan: probe.plan },
  };
}

/** The checkpoint tensors of a float graph by name. */
export function findSources(graph: Graph): ReadonlyMap<string, WeightSource> {
  const sources = [...graph.initializers.values()].flatMap(({ data }) =>
    data.kind === 'weight' ? data.members : [],
  );
  return new Map(sources.map((source) => [source.name, source]));
}

/** By name of a checkpoint tensor of a float graph: those that may share a tensor scale with it, itself included. */
export function findFused(graph: Graph): ReadonlyMap<string, readonly WeightSource[]> {
  const layers = [...graph.initializers.values()].flatMap(({ data }) =>
    data.kind === 'weight' ? [data.members] : [],
  );
  return new Map(
    layers.flatMap((members) => members.map((source) => [source.name, fusedWith(source, members)] as const)),
  );
}
