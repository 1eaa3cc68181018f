import { expect } from 'vitest';
import type { Graph, Initializer } from '../../../src/graph/ir.js';
import { findGraphProblem } from '../../../src/graph/validate.js';
import { makePlan } from '../../../src/quant/plan.js';
import { resolveScheme } from '../../../src/quant/registry.js';
import { quantizeGraph } from '../../../src/quant/rewrite.js';
import type { QuantizedGraph } from '../../../src/quant/rewrite.js';

export function quantize(graph: Graph, scheme: string, ignore: readonly string[] = []): QuantizedGraph {
  const before = structuredClone(graph);
  const plan = makePlan({ graph, scheme: resolveScheme(scheme), ignore });
  const result = quantizeGraph(graph, plan, { compute: 'float32' });
  expect(graph).toEqual(before);
  expect(findGraphProblem(result.graph)).toBeUndefined();
  return result;
}

export function initializer(graph: Graph, name: string): Initializer {
  const found = graph.initializers.get(name);
  if (found === undefined)
    throw new Error(`no initializer ${name} among ${[...graph.initializers.keys()].join(', ')}`);
  return found;
}
