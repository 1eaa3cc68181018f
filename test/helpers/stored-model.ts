import type { Graph, StoredFormat } from '../../src/graph/ir.js';

/**
 * `chooseQuantization` of a load: layers that a checkpoint stores quantized take their inputs as they are, whatever it
 * asks for. Golden logits of weights are such.
 */
export async function withoutRounding(_: unknown, graph: Graph): Promise<Record<string, never>> {
  for (const { data } of graph.initializers.values()) {
    for (const { stored } of data.kind === 'weight' ? data.members : []) {
      if (stored === undefined) continue;
      (stored.format as { activation: StoredFormat['activation'] }).activation = 'none';
    }
  }
  return {};
}

export function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, value, i) => sum + value * (y[i] ?? NaN), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
