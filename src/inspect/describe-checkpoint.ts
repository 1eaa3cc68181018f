import type { GraphNode, WeightSource } from '../graph/ir.js';
import type { CheckpointPlan, ServingPlan } from '../load/plan.js';
import { precisionName } from '../quant/precision.js';
import { SCHEMES } from '../quant/registry.js';
import type { IsaName } from '../runtime/addon.js';
import { kvBytesPerToken } from '../runtime/kv-layout.js';
import { countWeights } from './columns.js';
import { fitsWeights, forecastMemory, type MemorySettings } from './forecast.js';
import { findFreeLayers, findSources } from './free-layers.js';
import { describeKernel } from './kernels.js';
import { toLayerRow } from './layer-row.js';
import { addSums, toLayerError, type ErrorSums } from '../load/weight-meter.js';
import {
  REPORT_SCHEMA,
  type Alternative,
  type InspectReport,
  type LayerRow,
  type Totals,
  type WeightGroup,
} from './report.js';

/** What a report needs besides the plan. */
export interface DescribeOptions {
  readonly isa: IsaName;
  readonly memory: MemorySettings;
  /** By tensor name; absent: not measured. */
  readonly errors?: ReadonlyMap<string, ErrorSums>;
}

/** A weight that no layer is made of. */
type OtherWeight = Pick<WeightSource, 'name' | 'shape' | 'byteLength'>;

/** Folders whose graph is there already: of `fdq convert`, of onnxruntime-genai. */
export type FolderKind = 'fdq' | 'genai';

/** What checkpoints and converted folders know in different ways. */
interface Extras {
  readonly kind: 'checkpoint' | FolderKind;
  readonly others: readonly OtherWeight[];
  readonly alternatives: readonly Alternative[];
}

/** The report of a checkpoint whose layers are decided. */
export function describeCheckpoint(plan: CheckpointPlan, options: DescribeOptions): InspectReport {
  const tensors = new Set(plan.layers.map(({ tensor }) => tensor));
  return describePlan(plan, options, {
    kind: 'checkpoint',
    others: [...findSources(plan.floatGraph).values()].filter(({ name }) => !tensors.has(name)),
    alternatives: listAlternatives(plan, kvBytesPerToken(plan.decoder, plan.arithmetic.kv), options.memory),
  });
}

/** The report of a folder that has its graph: what `fdq serve` would run. */
export function describeFolder(kind: FolderKind, plan: ServingPlan, options: DescribeOptions): InspectReport {
  const nodes = new Map(plan.graph.nodes.map((node) => [node.name, node]));
  const layerNodes = plan.layers.flatMap(({ node }) => nodes.get(node) ?? []);
  const parts = new Set(layerNodes.flatMap(partsOf));
  return describePlan(plan, options, {
    kind,
    others: [...findSources(plan.graph).values()].filter(({ name }) => !parts.has(name)),
    alternatives: [],
  });
}

/** Names of the weight of a layer's node, its scales and zero points; not of its bias. */
function partsOf({ opType, inputs }: GraphNode): readonly string[] {
  const BIAS = 3;
  if (opType === 'QuantLinear') return inputs.filter((_, index) => index > 0 && index !== BIAS);
  return opType === 'Gemm' || opType === 'MatMul' ? inputs.slice(1, 2) : inputs;
}

function describePlan(plan: ServingPlan, options: DescribeOptions, extras: Extras): InspectReport {
  const { checkpoint, arithmetic, decoder } = plan;
  const layers = describeLayers(plan, options);
  const perToken = kvBytesPerToken(decoder, arithmetic.kv);
  const layerBytes = uniqueTensors(layers).reduce((sum, { bytesAfter }) => sum + bytesAfter, 0);
  const others: WeightGroup = {
    tensors: extras.others.length,
    parameters: extras.others.reduce((sum, { shape }) => sum + countWeights(shape), 0),
    bytesBefore: extras.others.reduce((sum, { byteLength }) => sum + byteLength, 0),
    bytesAfter: plan.weightBytes - layerBytes,
  };
  return {
    schema: REPORT_SCHEMA,
    model: {
      reference: checkpoint.reference,
      path: checkpoint.dir,
      kind: extras.kind,
      architecture: decoder.architecture,
      revision: checkpoint.revision ?? null,
      parameters: countParameters(layers) + others.parameters,
      storedBytes: checkpoint.totalBytes,
    },
    scheme: plan.scheme,
    arithmetic: {
      compute: arithmetic.compute,
      kvCacheDtype: arithmetic.kv,
      kvBytesPerToken: perToken,
      provider: 'cpu',
      isa: options.isa,
    },
    layers,
    others,
    totals: totalsOf(layers, { others, errors: options.errors }),
    memory: forecastMemory(plan, perToken, options.memory),
    alternatives: extras.alternatives,
    warnings: plan.warnings,
  };
}

/** Elements of the matrices, a tied one once. */
function countParameters(layers: readonly LayerRow[]): number {
  const shapes = new Map(layers.map(({ tensor, shape }) => [tensor, shape]));
  return [...shapes.values()].reduce((sum, shape) => sum + countWeights(shape), 0);
}

/** Rows of one tensor with one outcome count once: a tied embedding is one object. */
function uniqueTensors(layers: readonly LayerRow[]): readonly LayerRow[] {
  return [...new Map(layers.map((row) => [`${row.scheme} ${row.tensor}`, row])).values()];
}

export function totalsOf(
  layers: readonly LayerRow[],
  { others, errors }: { readonly others: WeightGroup; readonly errors?: DescribeOptions['errors'] },
): Totals {
  const unique = uniqueTensors(layers);
  const sum = (value: (row: LayerRow) => number): number => unique.reduce((all, row) => all + value(row), 0);
  const weights = sum(({ shape }) => countWeights(shape));
  const measured = unique.flatMap(({ tensor, error }) => {
    const sums = error === null ? undefined : errors?.get(tensor);
    return sums === undefined ? [] : [sums];
  });
  return {
    layers: unique.length,
    quantizedLayers: unique.filter(({ scheme }) => scheme !== 'none').length,
    bytesBefore: sum(({ bytesBefore }) => bytesBefore ?? 0) + others.bytesBefore,
    bytesAfter: sum(({ bytesAfter }) => bytesAfter) + others.bytesAfter,
    bitsPerWeight: weights === 0 ? 0 : (8 * sum(({ bytesAfter }) => bytesAfter)) / weights,
    error: measured.length === 0 ? null : toLayerError(addSums(measured)),
  };
}

function describeLayers(plan: ServingPlan, { isa, errors }: DescribeOptions): readonly LayerRow[] {
  const nodes = new Map(plan.graph.nodes.map((node) => [node.name, node]));
  return plan.layers.map((layer) =>
    toLayerRow(layer, {
      bytesAfter: layer.bytesAfter,
      kernel: describeNode(nodes.get(layer.node), isa),
      errors,
    }),
  );
}

/** What computes a node: kernels of fdq by format, everything else by ONNX Runtime. */
export function describeNode(node: GraphNode | undefined, isa: IsaName): string {
  if (node === undefined) return 'none';
  if (node.domain !== 'fdq') return `ONNX Runtime ${node.opType}`;
  const attribute = (name: string): string => {
    const found = node.attributes[name];
    return found?.type === 'string' ? found.value : '';
  };
  if (node.opType !== 'QuantLinear') return `fdq ${node.opType}: ${attribute('format')}`;
  return describeKernel({
    format: attribute('format'),
    activation: attribute('activation'),
    compute: attribute('compute'),
    isa,
  });
}

function listAlternatives(
  plan: CheckpointPlan,
  perToken: number,
  settings: MemorySettings,
): readonly Alternative[] {
  const free = isStoredQuantized(plan) ? undefined : findFreeLayers(plan);
  if (free === undefined) return [];
  return SCHEMES.filter(({ online }) => online).map((scheme) => {
    const weightBytes = free.layers.reduce(
      (sum, { shape, storedType, tensor, bytesBefore }) =>
        scheme.accepts({ name: tensor, shape, dataType: storedType }) === true
          ? sum + scheme.bytes({ shape, dataType: storedType })
          : sum + bytesBefore,
      free.fixedBytes,
    );
    return {
      scheme: scheme.name,
      precision: precisionName(scheme),
      weightBytes,
      fits: fitsWeights(weightBytes, perToken, settings),
    };
  });
}

/** Such layers keep their scheme, whatever is asked for. */
function isStoredQuantized({ floatGraph }: CheckpointPlan): boolean {
  return [...findSources(floatGraph).values()].some(({ stored }) => stored !== undefined);
}
