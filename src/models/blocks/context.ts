import type { GraphBuilder } from '../../graph/builder.js';
import type { ModelConfig, WeightLookup } from '../architecture.js';

/** What every block needs. Blocks are functions that add nodes and return value names. */
export interface BlockContext {
  readonly graph: GraphBuilder;
  readonly weights: WeightLookup;
  readonly config: ModelConfig;
}

/** Domain of fdq's own operators, and of ONNX Runtime's. */
export const FDQ_DOMAIN = 'fdq';
export const MICROSOFT_DOMAIN = 'com.microsoft';

/** Domain → version that the blocks emit. */
export const OPSETS: ReadonlyMap<string, number> = new Map([
  ['', 21],
  [MICROSOFT_DOMAIN, 1],
  [FDQ_DOMAIN, 1],
]);

/** Node names follow the checkpoint's module names: `model.layers.3.mlp` → `/model/layers.3/mlp`. */
export function scopeOf(graph: GraphBuilder, module: string): GraphBuilder {
  return graph.scope(module.replaceAll(/\.(?!\d+(\.|$))/g, '/'));
}
