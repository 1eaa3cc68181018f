// The float graph of a checkpoint on ONNX Runtime's own float32 Gemm, prepacked as by default: what a quantized
// prefill is compared with.
import { serializeModel } from '../../dist/graph/onnx.js';
import { openCheckpoint } from '../../dist/hub/checkpoint.js';
import { locateModel } from '../../dist/hub/locate.js';
import { openWeightFile } from '../../dist/hub/weight-file.js';
import { streamWeights } from '../../dist/load/stream-weights.js';
import { buildModel } from '../../dist/models/build-model.js';
import { loadRuntime } from '../../dist/runtime/load-addon.js';
import { createOnnxRunner } from '../../dist/runtime/onnx-runner.js';

/** Gives every Gemm a float32 weight of its own, widened while it is read. */
function widenGemms(graph) {
  const initializers = new Map(graph.initializers);
  const nodes = graph.nodes.map((node) => {
    const weight = graph.initializers.get(node.inputs[1]);
    if (node.opType !== 'Gemm' || weight?.data.kind !== 'weight') return node;
    const name = `${weight.name}.float32`;
    initializers.set(name, { ...weight, name, dataType: 'float32' });
    const inputs = [node.inputs[0], name, ...node.inputs.slice(2)];
    return { ...node, inputs };
  });
  const used = new Set(nodes.flatMap((node) => node.inputs));
  return { ...graph, nodes, initializers: new Map([...initializers].filter(([name]) => used.has(name))) };
}

/** Keys and values of 16 tokens in each block. */
function bfloat16Pool({ numLayers, numKvHeads, headDim }, numBlocks) {
  const byteLength = numLayers * numBlocks * 2 * numKvHeads * 16 * headDim * 2;
  return { dataType: 'bfloat16', numLayers, numBlocks, numKvHeads, headDim, byteLength };
}

export async function loadFloatBaseline(options, memory) {
  const runtime = loadRuntime();
  const checkpoint = await openCheckpoint(await locateModel(options.model));
  const { graph: floatGraph, info } = await buildModel(checkpoint.config, checkpoint.tensors);
  const graph = widenGemms(floatGraph);
  const initializers = await streamWeights(graph, {
    addon: runtime.addon,
    threads: options.threads,
    open: (file) => openWeightFile(file),
    onProgress: () => undefined,
  });
  return createOnnxRunner({
    runtime,
    model: serializeModel(graph),
    initializers,
    kvCache: bfloat16Pool(info, memory.numBlocks),
    threads: options.threads,
    isa: runtime.addon.detectIsa(),
    vocabSize: info.vocabSize,
    maxModelLen: memory.maxModelLen,
    maxLogitRows: memory.maxNumSeqs,
    maxBatchedTokens: memory.maxBatchedTokens,
  });
}
