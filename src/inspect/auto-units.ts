import { BugError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import type { Destination } from '../load/plan.js';
import { toLayerError, type ErrorSums, type WeightMeter } from '../load/weight-meter.js';
import { resolveScheme, SCHEMES } from '../quant/registry.js';
import type { LayerReport } from '../quant/report.js';
import type { QuantScheme } from '../quant/scheme.js';
import { countWeights } from './columns.js';
import { findFused, findSources, PROBE, type FreeLayers } from './free-layers.js';
import type { Choice } from './knapsack.js';

/** One unit under one scheme. */
export interface Candidate extends Choice {
  readonly scheme: QuantScheme;
  /** What each layer loses; undefined as stored: nothing is lost. */
  readonly sums: readonly (ErrorSums | undefined)[];
}

/** What is decided at once: a layer, or those that a destination holds in one scheme. */
export interface Unit {
  readonly layers: readonly LayerReport[];
  readonly candidates: readonly Candidate[];
}

export interface MeasureRequest {
  /** The float graph. */
  readonly graph: Graph;
  readonly meter: Pick<WeightMeter, 'measure'>;
  readonly destination?: Destination | undefined;
  /** Bytes of the layers measured so far; each is measured once for every candidate. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Schemes that `auto` chooses from: those that quantize while loading and leave activations alone, so that the error
 * of the weights is all there is, and `block_wise_fp8`, whose inputs are rounded in groups fine enough to lose less
 * than its weights do. `none` is always possible.
 */
function autoCandidates(): readonly QuantScheme[] {
  return SCHEMES.filter(
    ({ name, online, activation }) => online && (activation === null || name === 'block_wise_fp8'),
  );
}

/** Measures every free layer under every scheme that it and the destination can have. */
export async function measureUnits(request: MeasureRequest, free: FreeLayers): Promise<readonly Unit[]> {
  const sources = findSources(request.graph);
  const fused = findFused(request.graph);
  const totalBytes = free.layers.reduce((sum, { bytesBefore }) => sum + bytesBefore, 0);
  const units: Unit[] = [];
  let doneBytes = 0;
  for (const { layers, isFree } of formUnits(free.layers, request.destination)) {
    const candidates: Candidate[] = [];
    for (const scheme of isFree ? autoCandidates() : [resolveScheme('none')]) {
      request.signal?.throwIfAborted();
      const bytes = layers.map((layer) => bytesOf(layer, scheme, request.destination));
      if (bytes.includes(undefined)) continue;
      const sums: (ErrorSums | undefined)[] = [];
      for (const { tensor } of layers) {
        const source = sources.get(tensor);
        if (source === undefined) throw new BugError(`${tensor} is no weight of the graph`);
        const isMeasured = scheme.native !== null;
        sums.push(isMeasured ? await request.meter.measure(source, scheme, fused.get(tensor)) : undefined);
      }
      const total = bytes.reduce<number>((sum, each) => sum + (each ?? 0), 0);
      candidates.push({ scheme, sums, bytes: total, cost: costOf(layers, sums) });
    }
    units.push({ layers, candidates });
    doneBytes += layers.reduce((sum, { bytesBefore }) => sum + bytesBefore, 0);
    request.onProgress?.(doneBytes, totalBytes);
  }
  return units;
}

/** Bytes of everything that no scheme is chosen for. */
export function fixedBytesOf(free: FreeLayers, destination: Destination | undefined): number {
  if (destination?.weigh === undefined) return free.fixedBytes;
  const probe = resolveScheme(PROBE);
  const freeBytes = free.layers.reduce((sum, layer) => sum + (bytesOf(layer, probe, destination) ?? 0), 0);
  return destination.weigh(free.probe.flags) - freeBytes;
}

function formUnits(
  layers: readonly LayerReport[],
  destination: Destination | undefined,
): readonly { readonly layers: readonly LayerReport[]; readonly isFree: boolean }[] {
  const groups = new Map(
    (destination?.together ?? []).flatMap((tensors) => tensors.map((tensor) => [tensor, tensors] as const)),
  );
  const units = new Map<unknown, LayerReport[]>();
  for (const layer of layers) {
    const key = groups.get(layer.tensor) ?? layer;
    units.set(key, [...(units.get(key) ?? []), layer]);
  }
  // Where a part of a group has to stay, all of it does.
  return [...units].map(([key, unit]) => ({
    layers: unit,
    isFree: !Array.isArray(key) || key.length === unit.length,
  }));
}

function bytesOf(
  { tensor, shape, storedType: dataType }: LayerReport,
  scheme: QuantScheme,
  destination: Destination | undefined,
): number | undefined {
  if (scheme.accepts({ name: tensor, shape, dataType }) !== true) return undefined;
  return destination === undefined
    ? scheme.bytes({ shape, dataType })
    : destination.bytesOf({ name: tensor, shape, dataType }, scheme);
}

function costOf(layers: readonly LayerReport[], sums: readonly (ErrorSums | undefined)[]): number {
  return layers.reduce((cost, { shape }, index) => {
    const lost = sums[index];
    return cost + (lost === undefined ? 0 : countWeights(shape) * toLayerError(lost).frobenius ** 2);
  }, 0);
}
