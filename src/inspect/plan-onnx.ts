import { BugError, UnsupportedError } from '../errors.js';
import type { GraphNode, Initializer } from '../graph/ir.js';
import {
  createGraphDestination,
  sizeFloats,
  sizeQuantized,
  sumBytes,
} from '../convert/graph-input/destination.js';
import type { LayerView } from '../convert/graph-input/layer-view.js';
import type { Lowered } from '../convert/graph-input/lower-layer.js';
import { describeSkipped, type OpenModel } from '../convert/graph-input/open-model.js';
import { quantizeView } from '../convert/graph-input/quantize-view.js';
import { lowerEach, rewriteModel } from '../convert/graph-input/rewrite-model.js';
import { identifyFiles } from '../convert/graph-input/write-model.js';
import { listInitializers } from '../graph/scopes.js';
import type { ErrorSums } from '../load/weight-meter.js';
import type { QuantizationPlan } from '../quant/plan.js';
import { loadRuntime } from '../runtime/load-addon.js';
import type { AutoResult } from './auto.js';
import { chooseForWeights } from './choose-for-weights.js';
import type { InspectOptions } from './inspect.js';
import { toLayerRow } from './layer-row.js';
import { measureLayers } from './measure-layers.js';
import type { LayerRow } from './report.js';

/** What `fdq convert --format onnx` would make of a float model. */
export interface OnnxPlan {
  /** Rows by the name of the node they are of. */
  readonly rows: ReadonlyMap<string, readonly LayerRow[]>;
  /** Matrices of the model that the rows are about. */
  readonly matrices: ReadonlySet<Initializer>;
  readonly scheme: string;
  /** Of everything that would be written. */
  readonly weightBytes: number;
  readonly errors: ReadonlyMap<string, ErrorSums> | undefined;
  readonly warnings: readonly string[];
  readonly plan: QuantizationPlan;
  readonly auto: AutoResult | undefined;
}

/** Name that sources give for weights from inside of the model. */
export const INLINE_FILE = '';
/** Operators that multiply with the weights of a layer. */
const PRODUCTS: readonly string[] = ['QMoE', 'MatMulNBits', 'Gemm', 'MatMul'];

/**
 * Plans a float model by the flags; weights are read to be measured only.
 * @throws UnsupportedError and UserError where `fdq convert` would refuse the flags
 */
export async function planOnnx(model: OpenModel, options: InspectOptions): Promise<OnnxPlan> {
  const { source, view } = model;
  const weights = { files: await identifyFiles(source), inline: { file: INLINE_FILE, bytes: model.inline } };
  const auto = await choose(model, weights, options);
  const flags = { ...(auto?.flags ?? options.quantization), offline: true };
  const quantized = quantizeView(options.model, { source, view: view.graph }, flags);
  const { layers, scheme, plan } = quantized;
  const written = sumBytes(listInitializers(rewriteModel(source, view, quantized.graph).graph));
  const measured = { layers, floatGraph: view.graph, weights };
  const errors = auto?.errors ?? (options.measure ? await measureLayers(measured, options) : undefined);
  const lowered = lowerEach(source, view, quantized.graph);
  const sizes = { none: sizeFloats(source, view), quantized: sizeQuantized(view, quantized.graph, lowered) };
  const rows = new Map<string, LayerRow[]>();
  const products = new Map(quantized.graph.nodes.map(({ name, outputs }) => [name, outputs[0] ?? '']));
  const nodes = nodesByProduct(view);
  for (const layer of layers) {
    const node = nodes.get(products.get(layer.node) ?? '');
    if (node === undefined) throw new BugError(`${layer.node} is no product of the view`);
    const bytesAfter = (layer.scheme === 'none' ? sizes.none : sizes.quantized).get(layer.tensor) ?? 0;
    const kernel = `ONNX Runtime ${productOf(lowered.get(node.name)) ?? node.opType}`;
    const row = toLayerRow(layer, { bytesAfter, kernel, errors });
    rows.set(node.name, [...(rows.get(node.name) ?? []), row]);
  }
  return {
    rows,
    matrices: new Set(view.origins.values()),
    scheme,
    weightBytes: written,
    errors,
    warnings: [...plan.warnings, ...describeSkipped(view.skipped)],
    plan,
    auto,
  };
}

async function choose(
  { source, view }: OpenModel,
  weights: Parameters<typeof chooseForWeights>[0],
  { auto: limits, quantization, memory, onProgress, signal }: InspectOptions,
): Promise<AutoResult | undefined> {
  if (limits === undefined) return undefined;
  return chooseForWeights(weights, view.graph, {
    ...limits,
    ...(onProgress === undefined ? {} : { onProgress }),
    destination: createGraphDestination(source, view),
    flags: quantization,
    addon: loadRuntime().addon,
    threads: memory.threads,
    signal,
  });
}

/** The node of the model by the name of each product in the view. */
function nodesByProduct({ layers, experts }: LayerView): ReadonlyMap<string, GraphNode> {
  return new Map([
    ...[...layers.values()].map(({ output, node }) => [output, node] as const),
    ...[...experts.values()].flatMap(({ parts, node }) => parts.map(({ output }) => [output, node] as const)),
  ]);
}

function productOf(lowered: Lowered | UnsupportedError | undefined): string | undefined {
  if (lowered === undefined || lowered instanceof UnsupportedError) return undefined;
  return lowered.nodes.find(({ opType }) => PRODUCTS.includes(opType))?.opType;
}
