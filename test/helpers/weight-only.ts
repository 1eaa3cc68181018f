import type { Graph } from '../../src/graph/ir.js';
import { serializeModel } from '../../src/graph/onnx.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import { locateModel } from '../../src/hub/locate.js';
import { openWeightFile } from '../../src/hub/weight-file.js';
import { planModel, type LoadOptions } from '../../src/load/load-model.js';
import { streamWeights } from '../../src/load/stream-weights.js';
import { createOnnxRunner, type OnnxRunner } from '../../src/runtime/onnx-runner.js';
import { fixtureOptions } from './fixture-model.js';

/** What `runStep` needs of a model. */
export interface WeightOnlyModel {
  readonly runner: OnnxRunner;
  readonly decoder: { readonly vocabSize: number };
}

/**
 * A model whose linear layers leave their inputs alone whatever their scheme says: what the goldens of dequantized
 * weights are computed from.
 */
export async function loadWeightOnly(
  folder: string,
  options: Partial<LoadOptions> = {},
): Promise<WeightOnlyModel> {
  const silent = { phase: () => undefined, warn: () => undefined };
  const checkpoint = await openCheckpoint(await locateModel(folder, {}));
  const request = { ...fixtureOptions(folder), ...options };
  const planned = await planModel(checkpoint, request, silent);
  const graph = withoutActivationRounding(planned.graph);
  const initializers = await streamWeights(graph, {
    addon: planned.runtime.addon,
    threads: request.threads,
    open: (file) => openWeightFile(file, undefined),
    onProgress: () => undefined,
  });
  const runner = await createOnnxRunner({
    runtime: planned.runtime,
    model: serializeModel(graph),
    initializers,
    kvCache: planned.kvCache,
    threads: request.threads,
    isa: planned.isa,
    vocabSize: planned.decoder.vocabSize,
    maxModelLen: planned.memory.maxModelLen,
    maxLogitRows: planned.memory.maxLogitRows,
    maxBatchedTokens: planned.memory.maxBatchedTokens,
  });
  return { runner, decoder: planned.decoder };
}

function withoutActivationRounding(graph: Graph): Graph {
  const nodes = graph.nodes.map((node) =>
    node.opType === 'QuantLinear'
      ? {
          ...node,
          attributes: { ...node.attributes, activation: { type: 'string', value: 'none' } as const },
        }
      : node,
  );
  return { ...graph, nodes };
}
