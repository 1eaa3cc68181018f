import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Graph } from '../../graph/ir.js';
import { serializeModel } from '../../graph/onnx.js';
import { listInitializers, mapInitializers } from '../../graph/scopes.js';
import type { FileIdentity } from '../../hub/checkpoint.js';
import { identify, openWeightFile } from '../../hub/weight-file.js';
import { SHARED_MODES } from '../../load/folder/staged-folder.js';
import { layOutTensors, WeightsFile, type WeightsLayout } from '../../load/folder/weights-file.js';
import { writeFailure } from '../../load/folder/write-problems.js';
import { loadRuntime } from '../../runtime/load-addon.js';
import type { SourcedTensor } from '../onnx/stock-weights.js';
import { produceWeights } from '../produce-weights.js';
import type { RewrittenModel } from './rewrite-model.js';

/** A planned model on its way to a folder. */
export interface GraphJob {
  readonly source: Graph;
  /** The layers, quantized. */
  readonly quantized: Graph;
  readonly rewritten: RewrittenModel;
  /** Holds the weights that are inside of the model file, while they are quantized. */
  readonly inlineFile: string;
  readonly dir: string;
  /** Of the .onnx file, in `dir`. */
  readonly name: string;
  readonly threads: number;
  readonly signal: AbortSignal;
  readonly onProgress: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Writes the model and its external data, layer by layer.
 * @throws UserError `write_failed`, and as `produceWeights`
 */
export async function writeModel(job: GraphJob): Promise<void> {
  const { source, quantized, rewritten, dir, name: modelFile } = job;
  const { tensors, kept } = rewritten;
  const layout = layOutTensors([...tensors.map(({ target }) => target), ...kept]);
  const totalBytes = layout.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  const bySource = new Map<string, SourcedTensor[]>();
  for (const tensor of tensors) {
    if ('source' in tensor) bySource.set(tensor.source, [...(bySource.get(tensor.source) ?? []), tensor]);
  }
  const produced = [...quantized.initializers.values()].filter(({ name }) => bySource.has(name));
  const dataFile = path.join(dir, `${modelFile}.data`);
  const data = await WeightsFile.create(dataFile, layout, SHARED_MODES.file);
  try {
    let doneBytes = 0;
    const files = await identifyFiles(source, [job.inlineFile]);
    await produceWeights(
      { ...quantized, initializers: new Map([...produced, ...kept].map((each) => [each.name, each])) },
      {
        addon: loadRuntime().addon,
        checkpoint: { files },
        threads: job.threads,
        signal: job.signal,
        write: async ({ name }, bytes) => {
          const targets = bySource.get(name) ?? [{ target: { name }, convert: undefined }];
          for (const { target, convert } of targets) {
            const converted = convert?.(bytes) ?? bytes;
            await data.write(target.name, converted);
            doneBytes += converted.byteLength;
          }
          job.onProgress(doneBytes, totalBytes);
        },
      },
    );
    data.finish();
  } finally {
    await data.close();
  }
  const graph = placeTensors(rewritten, dataFile, layout);
  await writeNew(path.join(dir, modelFile), serializeModel(graph, { dir }));
}

/** The graph with its large tensors in the data file. */
function placeTensors({ graph, places }: RewrittenModel, file: string, layout: WeightsLayout): Graph {
  const byName = new Map(layout.tensors.map((tensor) => [tensor.name, tensor]));
  return mapInitializers(graph, (initializer) => {
    const place = byName.get(places.get(initializer) ?? '');
    if (place === undefined) return initializer;
    const { offset, bytes: byteLength } = place;
    return { ...initializer, data: { kind: 'external', file, offset, byteLength } };
  });
}

/**
 * Files that weights are read from, as they are now.
 * @param more beside those of external data
 */
export async function identifyFiles(
  source: Graph,
  more: readonly string[] = [],
): Promise<readonly FileIdentity[]> {
  const names = new Set(more);
  for (const { data } of listInitializers(source)) if (data.kind === 'external') names.add(data.file);
  const files: FileIdentity[] = [];
  for (const name of names) {
    const handle = await openWeightFile(name);
    try {
      files.push(await identify(handle, name));
    } finally {
      await handle.close();
    }
  }
  return files;
}

/** @throws UserError `write_failed` */
export async function writeNew(file: string, content: Uint8Array): Promise<void> {
  try {
    await writeFile(file, content, { flag: 'wx' });
  } catch (error) {
    throw writeFailure(file, error);
  }
}
