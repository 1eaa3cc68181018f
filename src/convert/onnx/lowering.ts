import { UnsupportedError } from '../../errors.js';
import type { GraphBuilder } from '../../graph/builder.js';
import type { Attribute, Graph, GraphNode, Initializer } from '../../graph/ir.js';
import type { DecoderInfo } from '../../models/architecture.js';
import type { StockTensor } from './stock-weights.js';

/** What the lowering of one layer may use. */
export interface LayerLowering {
  readonly source: Graph;
  readonly builder: GraphBuilder;
  /** Values of the packed graph → values here. */
  readonly names: Map<string, string>;
  /** Tensors of the result that are not inline, by name. */
  readonly tensors: Map<string, StockTensor>;
  /** Type of the values that weights of blocks are multiplied with; default: float32. */
  readonly valueType?: 'float32' | 'float16';
}

/** What the lowering of one node of a decoder may use. */
export interface Lowering extends LayerLowering {
  readonly decoder: DecoderInfo;
  /** int64 [3], `batch, sequence, -1`: folds [tokens, n] to [batch, sequence, n]. */
  readonly batchShape: string;
  /** int32 [batch]: positions of each sequence after this step, minus one. */
  readonly lastPositions: string;
  /** int32 scalar: the longest of them plus one. */
  readonly totalLength: string;
}

/** The name here of a value or an initializer of the packed graph. */
export function mapped(lowering: LayerLowering, name: string): string {
  if (name === '') return '';
  const known = lowering.names.get(name);
  if (known !== undefined) return known;
  const initializer = lowering.source.initializers.get(name);
  if (initializer === undefined) throw refuse(`the value ${name}`, 'Write --format fdq.');
  const added = keepInitializer(lowering, initializer);
  lowering.names.set(name, added);
  return added;
}

function keepInitializer(lowering: LayerLowering, initializer: Initializer): string {
  const { name, dataType, shape, data } = initializer;
  if (data.kind !== 'inline') return addTensor(lowering, { source: name, target: initializer });
  return lowering.builder.constant(name.replace(/^\//, ''), dataType, shape, data.bytes);
}

/** Declares a tensor whose bytes the writer produces. */
export function addTensor(lowering: LayerLowering, tensor: StockTensor): string {
  const { name } = tensor.target;
  if (lowering.tensors.has(name)) return name;
  lowering.tensors.set(name, tensor);
  return lowering.builder.initializer(tensor.target);
}

/** Node names stay under the module they belong to. */
export function scopeOf({ builder }: LayerLowering, node: GraphNode): GraphBuilder {
  const folder = node.name.slice(1, Math.max(1, node.name.lastIndexOf('/')));
  return folder === '' ? builder : builder.scope(folder);
}

export function refuse(what: string, hint: string): UnsupportedError {
  return new UnsupportedError(
    'unsupported_model',
    `The format "onnx" cannot hold ${what}: no operator of a standard ONNX Runtime computes it.`,
    { param: '--format', suggestions: [hint] },
  );
}

/** An int or float attribute; 0 when it is absent. */
export function numberOf(node: GraphNode, name: string): number {
  const attribute: Attribute | undefined = node.attributes[name];
  return attribute?.type === 'int' || attribute?.type === 'float' ? attribute.value : 0;
}
