import { UserError } from '../errors.js';
import type { Graph } from '../graph/ir.js';
import { formatBytes } from '../cli/render.js';
import { applyQuantization, weightBytesOf, type QuantizationFlags } from '../load/apply-quantization.js';
import { SCHEMES } from '../quant/registry.js';
import type { QuantScheme } from '../quant/scheme.js';
import { splitFlags } from './base-flags.js';
import { findFreeLayers, findSources, type FreeLayers } from './free-layers.js';
import { countWeights, formatQuantity } from './columns.js';
import { chooseWithin, totalOf, type Choice } from './knapsack.js';
import { toLayerError, type ErrorSums, type WeightMeter } from '../load/weight-meter.js';

/** What `--quantization auto` is held to; at least one of the two. */
export interface AutoLimits {
  /** Most bytes all weights may take, those that are not quantized included. */
  readonly maxWeightBytes?: number;
  /** Largest relative error ‖w - r‖ / ‖w‖ of any layer. */
  readonly maxError?: number;
}

export interface AutoRequest extends AutoLimits {
  /** Flags beside the scheme: layers left out, the lm_head, the cache. */
  readonly flags: QuantizationFlags;
  /** The float graph. */
  readonly graph: Graph;
  readonly meter: Pick<WeightMeter, 'measure'>;
  /** Checkpoint bytes of the layers measured so far; each is measured once for every candidate. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal | undefined;
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

/** One layer under one scheme. */
interface Candidate extends Choice {
  readonly scheme: QuantScheme;
  /** undefined as stored: nothing is lost. */
  readonly sums: ErrorSums | undefined;
}

interface Layer {
  readonly name: string;
  readonly tensor: string;
  readonly candidates: readonly Candidate[];
}

/** Times the budget is lowered when biases of split layers take more than was counted. */
const MAX_ROUNDS = 4;

/**
 * Schemes that `auto` chooses from: those that quantize while loading and leave activations alone, so that the error
 * of the weights is all there is, and `block_wise_fp8`, whose inputs are rounded in groups fine enough to lose less
 * than its weights do. `none` is always possible.
 */
export function autoCandidates(): readonly QuantScheme[] {
  return SCHEMES.filter(
    ({ name, online, activation }) => online && (activation === null || name === 'block_wise_fp8'),
  );
}

/**
 * Measures every layer under every candidate scheme and chooses one for each. With a byte budget the sum over layers
 * of weights × (‖w - r‖ / ‖w‖)² is least; with an error bound alone the bytes are. The same checkpoint and limits
 * give the same choice.
 * @throws UserError `usage` beside other schemes; `out_of_memory` naming the smallest possible size
 */
export async function chooseAutomatically(request: AutoRequest): Promise<AutoResult> {
  const free = requireFree(request);
  const layers = await measureLayers(request, free);
  const { maxError = Infinity, maxWeightBytes = Infinity } = request;
  const allowed = layers.map(({ candidates }) =>
    candidates.filter(({ sums }) => sums === undefined || toLayerError(sums).frobenius <= maxError),
  );
  let budget = maxWeightBytes - free.fixedBytes;
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const picks = choose(allowed, budget);
    if (picks === undefined) throw tooSmall(allowed, free, request);
    const result = describeChoice(request, layers, picks);
    if (result.weightBytes <= maxWeightBytes) return result;
    budget -= result.weightBytes - maxWeightBytes;
  }
  throw tooSmall(allowed, free, request);
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

/** Bytes do not depend on how inputs travel. */
const ANY_ARITHMETIC = { compute: 'float32', kv: 'float32' } as const;

async function measureLayers(request: AutoRequest, free: FreeLayers): Promise<readonly Layer[]> {
  const sources = findSources(request.graph);
  const schemes = autoCandidates();
  const totalBytes = free.layers.reduce((sum, { bytesBefore }) => sum + bytesBefore, 0);
  const layers: Layer[] = [];
  let doneBytes = 0;
  for (const { name, tensor, shape, bytesBefore } of free.layers) {
    const source = sources.get(tensor);
    if (source === undefined) continue;
    const candidates: Candidate[] = [];
    for (const scheme of schemes) {
      request.signal?.throwIfAborted();
      if (scheme.accepts(source) !== true) continue;
      const sums = scheme.native === null ? undefined : await request.meter.measure(source, scheme);
      const frobenius = sums === undefined ? 0 : toLayerError(sums).frobenius;
      const cost = countWeights(shape) * frobenius ** 2;
      candidates.push({ scheme, sums, bytes: scheme.bytes(source), cost });
    }
    layers.push({ name, tensor, candidates });
    doneBytes += bytesBefore;
    request.onProgress?.(doneBytes, totalBytes);
  }
  return layers;
}

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
  layers: readonly Layer[],
  picks: readonly Candidate[],
): AutoResult {
  const targets = Object.fromEntries(
    layers.map(({ name }, index) => [name, (picks[index] as Candidate).scheme.name]),
  );
  const { quantizationConfig = {}, ...others } = splitFlags(request.flags).rest;
  const config = { ...omit(quantizationConfig, ['quantize_lm_head', 'quantize_embeddings']), targets };
  const flags: QuantizationFlags = {
    ...omit(others, ['quantizeLmHead', 'quantizeEmbeddings']),
    quantizationConfig: config,
  };
  const errors = new Map(
    layers.flatMap(({ tensor }, index) => {
      const sums = picks[index]?.sums;
      return sums === undefined ? [] : [[tensor, sums] as const];
    }),
  );
  const weightBytes = weightBytesOf(applyQuantization(request.graph, flags, ANY_ARITHMETIC).graph);
  return { flags, config, weightBytes, errors, summary: summarize(layers, picks, weightBytes) };
}

/** The targets name what the switches for lm_head and embeddings ask for. */
function omit(object: object, keys: readonly string[]): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(object).filter(([key]) => !keys.includes(key)));
}

function summarize(
  layers: readonly Layer[],
  picks: readonly Candidate[],
  weightBytes: number,
): readonly string[] {
  const byScheme = new Map<string, { names: string[]; bytes: number; worst: number }>();
  for (const [index, { scheme, bytes, sums }] of picks.entries()) {
    const entry = byScheme.get(scheme.name) ?? { names: [], bytes: 0, worst: 0 };
    entry.names.push(layers[index]?.name ?? '');
    entry.bytes += bytes;
    entry.worst = Math.max(entry.worst, sums === undefined ? 0 : toLayerError(sums).frobenius);
    byScheme.set(scheme.name, entry);
  }
  const lines = [...byScheme].map(([scheme, { names, bytes, worst }]) => {
    const shown = `${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''}`;
    return `${scheme}: ${names.length} layers, ${formatBytes(bytes)}, error at most ${formatQuantity('share', worst)} (${shown})`;
  });
  return [`Chosen by measured error: ${formatBytes(weightBytes)} of weights.`, ...lines];
}

function tooSmall(
  layers: readonly (readonly Candidate[])[],
  { fixedBytes }: FreeLayers,
  { maxWeightBytes = 0, maxError }: AutoLimits,
): UserError {
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
        'Or quantize more: --quantize-lm-head --quantize-embeddings.',
      ],
    },
  );
}
