import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import { formatBytes } from '../cli/render.js';
import { applyQuantization, weightBytesOf, type QuantizationFlags } from '../load/apply-quantization.js';
import { toLayerError, type ErrorSums } from '../load/weight-meter.js';
import { createExactPatterns } from '../quant/exact-pattern.js';
import { fixedBytesOf, measureUnits, type Candidate, type MeasureRequest, type Unit } from './auto-units.js';
import { splitFlags } from './base-flags.js';
import { formatQuantity } from './columns.js';
import { findFreeLayers, type FreeLayers } from './free-layers.js';
import { chooseWithin, totalOf } from './knapsack.js';

/** What `--quantization auto` is held to; at least one of the two. */
export interface AutoLimits {
  /** Most bytes all weights may take, those that are not quantized included. */
  readonly maxWeightBytes?: number;
  /** Largest relative error ‖w - r‖ / ‖w‖ of any layer. */
  readonly maxError?: number;
}

export interface AutoRequest extends AutoLimits, MeasureRequest {
  /** Flags beside the scheme: layers left out, the lm_head, the cache. */
  readonly flags: QuantizationFlags;
}

export interface AutoResult {
  /** The choice as flags: `targets` names the scheme of every layer. */
  readonly flags: QuantizationFlags;
  /** The same as a file for `--quantization-config`. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly weightBytes: number;
  /** Of what was chosen, by tensor name. */
  readonly errors: ReadonlyMap<string, ErrorSums>;
  /** Lines for people. */
  readonly summary: readonly string[];
}

/** Times the budget is lowered when biases of split layers take more than was counted. */
const MAX_ROUNDS = 4;

/**
 * Measures every layer under every candidate scheme and chooses one for each. With a byte budget the sum over layers
 * of weights × (‖w - r‖ / ‖w‖)² is least; with an error bound alone the bytes are. The same checkpoint and limits
 * give the same choice.
 * @throws UserError `usage` beside other schemes; `out_of_memory` naming the smallest possible size
 */
export async function chooseAutomatically(request: AutoRequest): Promise<AutoResult> {
  const free = requireFree(request);
  const units = await measureUnits(request, free);
  const fixedBytes = fixedBytesOf(free, request.destination);
  const { maxError = Infinity, maxWeightBytes = Infinity } = request;
  const allowed = units.map(({ candidates }) =>
    candidates.filter(({ sums }) => sums.every((lost) => errorOf(lost) <= maxError)),
  );
  let budget = maxWeightBytes - fixedBytes;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const picks = choose(allowed, budget);
    if (picks === undefined) throw tooSmall(allowed, fixedBytes, { request, free });
    const result = describeChoice(request, free, { units, picks });
    if (result.weightBytes <= maxWeightBytes) return result;
    budget -= result.weightBytes - maxWeightBytes;
  }
  throw tooSmall(allowed, fixedBytes, { request, free });
}

function requireFree({ flags, graph }: AutoRequest): FreeLayers {
  const free = findFreeLayers({ floatGraph: graph, quantization: flags, arithmetic: ANY_ARITHMETIC });
  if (free !== undefined) return free;
  throw new UserError(
    'usage',
    `--quantization auto chooses the scheme of every layer, but ${splitFlags(flags).schemeKeys.join(', ')} name some too.`,
    {
      param: 'quantization-config',
      suggestions: ['Leave those keys out; "ignore" keeps layers as they are stored.'],
    },
  );
}

function errorOf(lost: ErrorSums | undefined): number {
  return lost === undefined ? 0 : toLayerError(lost).frobenius;
}

/** Bytes do not depend on how inputs travel. */
const ANY_ARITHMETIC = { compute: 'float32', kv: 'float32' } as const;

/** The candidate of each layer; without a budget the smallest, and of equally small ones the most exact. */
function choose(layers: readonly (readonly Candidate[])[], budget: number): readonly Candidate[] | undefined {
  if (budget === Infinity) {
    return layers.map((candidates) =>
      candidates.reduce((best, each) =>
        each.bytes < best.bytes || (each.bytes === best.bytes && each.cost < best.cost) ? each : best,
      ),
    );
  }
  const selection = chooseWithin(layers, budget);
  return selection?.map((index, layer) => layers[layer]?.[index] as Candidate);
}

function describeChoice(
  request: AutoRequest,
  free: FreeLayers,
  { units, picks }: { readonly units: readonly Unit[]; readonly picks: readonly Candidate[] },
): AutoResult {
  const toPattern = createExactPatterns(free.probe.plan.layers);
  const chosen = units.flatMap(({ layers }, unit) => {
    const { scheme, sums } = picks[unit] as Candidate;
    return layers.map(({ name, tensor }, layer) => ({ name, tensor, scheme, lost: sums[layer] }));
  });
  const targets = Object.fromEntries(chosen.map(({ name, scheme }) => [toPattern(name), scheme.name]));
  const { quantizationConfig = {}, ...others } = splitFlags(request.flags).rest;
  const config = { ...omit(quantizationConfig, ['quantize_lm_head', 'quantize_embeddings']), targets };
  const flags: QuantizationFlags = {
    ...omit(others, ['quantizeLmHead', 'quantizeEmbeddings']),
    quantizationConfig: config,
  };
  const errors = new Map(
    chosen.flatMap(({ tensor, lost }) => (lost === undefined ? [] : [[tensor, lost] as const])),
  );
  const weightBytes =
    request.destination?.weigh?.(flags) ??
    weightBytesOf(applyQuantization(request.graph, flags, ANY_ARITHMETIC).graph);
  return { flags, config, weightBytes, errors, summary: summarize(units, picks, weightBytes) };
}

/** The targets name what the switches for lm_head and embeddings ask for. */
function omit(object: object, keys: readonly string[]): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function summarize(
  units: readonly Unit[],
  picks: readonly Candidate[],
  weightBytes: number,
): readonly string[] {
  const byScheme = new Map<string, { names: string[]; bytes: number; worst: number }>();
  for (const [index, { scheme, bytes, sums }] of picks.entries()) {
    const entry = byScheme.get(scheme.name) ?? { names: [], bytes: 0, worst: 0 };
    entry.names.push(...(units[index]?.layers ?? []).map(({ name }) => name));
    entry.bytes += bytes;
    entry.worst = Math.max(entry.worst, ...sums.map(errorOf));
    byScheme.set(scheme.name, entry);
  }
  const lines = [...byScheme].map(([scheme, { names, bytes, worst }]) => {
    const shown = `${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''}`;
    return `${scheme}: ${counted(names.length, 'layer')}, ${formatBytes(bytes)}, error at most ${formatQuantity('share', worst)} (${shown})`;
  });
  return [`Chosen by measured error: ${formatBytes(weightBytes)} of weights.`, ...lines];
}

/** Flags for layers that stay as they are; no written format but fdq's holds quantized embeddings. */
function adviseMore({ destination }: AutoRequest, { layers, probe }: FreeLayers): readonly string[] {
  const free = new Set(layers.map(({ kind }) => kind));
  const kept = new Set(probe.plan.layers.map(({ kind }) => kind).filter((kind) => !free.has(kind)));
  const isTable = destination === undefined && (kept.has('embedding') || kept.has('tied embedding'));
  const flags = [
    ...(kept.has('lm_head') ? ['--quantize-lm-head'] : []),
    ...(isTable ? ['--quantize-embeddings'] : []),
  ];
  return flags.length === 0 ? [] : [`Or quantize more: ${flags.join(' ')}.`];
}

function tooSmall(
  layers: readonly (readonly Candidate[])[],
  fixedBytes: number,
  { request, free }: { readonly request: AutoRequest; readonly free: FreeLayers },
): UserError {
  const { maxWeightBytes = 0, maxError } = request;
  const smallest = layers.map((candidates) =>
    candidates.reduce((best, { bytes }, index) => (bytes < (candidates[best]?.bytes ?? 0) ? index : best), 0),
  );
  const least = fixedBytes + totalOf(layers, smallest).bytes;
  const bound =
    maxError === undefined ? '' : ` with no layer off by more than ${formatQuantity('share', maxError)}`;
  return new UserError(
    'out_of_memory',
    `No choice of schemes takes at most ${formatBytes(maxWeightBytes)}${bound}: the smallest takes ${formatBytes(least)}, of which ${formatBytes(fixedBytes)} are not quantized.`,
    {
      param: 'max-weight-bytes',
      suggestions: [
        `Allow ${Math.ceil(least / 1024 ** 2)}MiB.`,
        ...(maxError === undefined ? [] : ['Or raise --max-error.']),
        ...adviseMore(request, free),
      ],
    },
  );
}
