import path from 'node:path';
import { counted } from '../../counted.js';
import { UnsupportedError } from '../../errors.js';
import type { Graph } from '../../graph/ir.js';
import { parseModel } from '../../graph/onnx.js';
import { readSmallFile } from '../../hub/weight-file.js';
import { findLayers } from './find-layers.js';
import type { LayerView } from './layer-view.js';

/** Protobuf holds at most this. */
export const MAX_MODEL_BYTES = 2 ** 31 - 1;
/** Layers named in the warning about those that stay. */
const SHOWN = 3;

/** A float model and its layers. */
export interface OpenModel {
  readonly source: Graph;
  readonly view: LayerView;
  /** Weights from inside of the model file. */
  readonly inline: Uint8Array;
}

/**
 * Reads the graph of a float ONNX model; weights in external files are not read.
 * @param reference to the model, for messages
 * @param inlineFile see `findLayers`
 * @throws UserError as `readSmallFile` and `parseModel`, and as `findModelLayers`
 */
export async function openModel(reference: string, file: string, inlineFile: string): Promise<OpenModel> {
  const source = parseModel(await readSmallFile(file, MAX_MODEL_BYTES), { dir: path.dirname(file), file });
  return findModelLayers(reference, source, inlineFile);
}

/** @throws UnsupportedError `unsupported_model` for a model without layers that could be quantized */
export function findModelLayers(reference: string, source: Graph, inlineFile: string): OpenModel {
  const view = findLayers(source, inlineFile);
  if (view.graph.nodes.length === 0) throw refuseNothing(reference, view.skipped);
  return { source, view, inline: Buffer.concat(view.inline) };
}

function refuseNothing(model: string, skipped: ReadonlyMap<string, string>): UnsupportedError {
  const [why] = describeSkipped(skipped);
  return new UnsupportedError(
    'unsupported_model',
    `${JSON.stringify(model)} has no MatMul, Gemm or MoE with a constant matrix of floats.${why === undefined ? '' : ` ${why}`}`,
    { param: 'model', suggestions: ['Give the float model, before any quantization.'] },
  );
}

/** Products that stay, as a warning. */
export function describeSkipped(skipped: ReadonlyMap<string, string>): readonly string[] {
  if (skipped.size === 0) return [];
  const shown = [...skipped].slice(0, SHOWN).map(([name, why]) => `${name} (${why})`);
  return [
    `${counted(skipped.size, 'product stays as it is', 'products stay as they are')}: ${shown.join(', ')}${skipped.size > SHOWN ? ', ...' : ''}.`,
  ];
}
