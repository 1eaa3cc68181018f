import type { InferenceSession, Tensor } from 'onnxruntime-node';
import path from 'node:path';
import type { Graph } from '../../graph/ir.js';
import { parseModel, serializeModel } from '../../graph/onnx.js';
import { readSmallFile } from '../../hub/weight-file.js';
import { decodeFp16 } from '../../quant/numerics/fp16.js';
import { loadRuntime } from '../../runtime/load-addon.js';
import { guardExperts, hasExperts } from './guard-experts.js';
import { makeInputs, type MadeUpInput } from './made-up-inputs.js';
import { MAX_MODEL_BYTES } from './open-model.js';
import { outputDiffers, refuseInputs } from './verify-problems.js';

/**
 * Least cosine of an output, by the bits of the narrowest weights. Random matrices of 8192 columns in 9 layers, the
 * hardest case tried, gave 0.998 in 8 bits and 0.68 in 4; weights that are turned, shifted or those of another layer
 * give about 0.
 */
const LEAST_COSINE = { 4: 0.5, 8: 0.9 } as const;

/** How the written model is run, and the bits of its narrowest weights. */
export interface CompareOptions {
  readonly threads: number;
  readonly bits: keyof typeof LEAST_COSINE;
}

/** Outputs of a model on made-up inputs. */
export interface Probe {
  readonly hasExperts: boolean;
  readonly inputs: readonly MadeUpInput[];
  readonly outputs: ReadonlyMap<string, Output>;
}

interface Output {
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/**
 * Runs the given model. Takes the memory of its floats.
 * @throws UnsupportedError `unsupported_model` when inputs cannot be made up, or say nothing
 */
export async function probeModel(graph: Graph, file: string, threads: number): Promise<Probe> {
  const inputs = makeInputs(graph);
  const isGuarded = hasExperts(graph);
  const outputs = await run(file, inputs, { threads, isGuarded }).catch((cause: unknown) => {
    throw refuseInputs(`ONNX Runtime fails on ${describeInputs(inputs)}: ${reasonOf(cause)}`, cause);
  });
  if (outputs.size === 0) throw refuseInputs('it gives no values of floats');
  for (const [name, { values }] of outputs) {
    if (Array.prototype.every.call(values, Number.isFinite)) continue;
    throw refuseInputs(`"${name}" is not finite on ${describeInputs(inputs)}`);
  }
  return { inputs, outputs, hasExperts: isGuarded };
}

/**
 * Runs the written model on the same inputs and compares the directions of all outputs of floats.
 * @returns what was found, for the user
 * @throws UserError `check_failed` naming the output that differs
 */
export async function compareModel(
  { inputs, outputs, hasExperts: isGuarded }: Probe,
  file: string,
  { threads, bits }: CompareOptions,
): Promise<string> {
  const least = LEAST_COSINE[bits];
  const found = await run(file, inputs, { threads, isGuarded }).catch((cause: unknown) => {
    throw outputDiffers(`ONNX Runtime fails on it: ${reasonOf(cause)}`, cause);
  });
  let worst = 1;
  for (const [name, expected] of outputs) {
    const other = found.get(name);
    if (other?.shape.join() !== expected.shape.join()) {
      throw outputDiffers(
        `"${name}" is [${other?.shape.join(', ') ?? ''}], not [${expected.shape.join(', ')}]`,
      );
    }
    const similarity = cosine(expected.values, other.values);
    // A NaN is no similarity either.
    if (!(similarity >= least)) {
      throw outputDiffers(`"${name}" has a cosine of ${similarity.toFixed(4)} with it, less than ${least}`);
    }
    worst = Math.min(worst, similarity);
  }
  const count = `${outputs.size} ${outputs.size === 1 ? 'output has' : 'outputs have'}`;
  return `${count} a cosine of at least ${worst.toFixed(6)} with the float model's, on made-up inputs`;
}

/** Outputs of floats by name; `isGuarded`: of the graph that `guardExperts` makes of the file's. */
async function run(
  file: string,
  inputs: readonly MadeUpInput[],
  { threads, isGuarded }: { readonly threads: number; readonly isGuarded: boolean },
): Promise<ReadonlyMap<string, Output>> {
  // The addon loads the library first, with its telemetry switched off. The binding is for this alone.
  loadRuntime();
  const ort = await import('onnxruntime-node');
  const options: InferenceSession.SessionOptions = { intraOpNumThreads: threads, logSeverityLevel: 4 };
  const session = isGuarded
    ? await ort.InferenceSession.create(await readGuarded(file), { ...options, extra: dataIn(file) })
    : await ort.InferenceSession.create(file, options);
  try {
    const feeds = inputs.map(({ name, dataType, shape, data }) => {
      const tensor = new ort.Tensor(dataType, data as Float32Array, [...shape]);
      return [name, tensor] as const;
    });
    const results = await session.run(Object.fromEntries(feeds));
    return new Map(Object.entries(results).flatMap(([name, tensor]) => readOutput(name, tensor)));
  } finally {
    await session.release();
  }
}

/** Where a model in memory finds its external data. */
function dataIn(file: string): Record<string, unknown> {
  return { session: { model_external_initializers_file_folder_path: path.dirname(file) } };
}

/** The model with its experts guarded; its external data stays in its files. */
async function readGuarded(file: string): Promise<Uint8Array> {
  const dir = path.dirname(file);
  const graph = parseModel(await readSmallFile(file, MAX_MODEL_BYTES), { dir, file });
  return serializeModel(guardExperts(graph), { dir });
}

function readOutput(name: string, { type, dims, data }: Tensor): readonly (readonly [string, Output])[] {
  if (data.length === 0) return [];
  if (type === 'float32' || type === 'float64')
    return [[name, { shape: dims, values: data as Float32Array }]];
  if (type !== 'float16') return [];
  const bits = new Uint16Array((data as Uint16Array).buffer, (data as Uint16Array).byteOffset, data.length);
  return [[name, { shape: dims, values: Float32Array.from(bits, decodeFp16) }]];
}

/** 1 for two that are all zeros. */
function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [dot, squareA, squareB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i] as number, b[i] as number];
    dot += x * y;
    squareA += x * x;
    squareB += y * y;
  }
  return squareA === 0 && squareB === 0 ? 1 : dot / Math.sqrt(squareA * squareB);
}

function describeInputs(inputs: readonly MadeUpInput[]): string {
  return inputs.map(({ name, dataType, shape }) => `${name} ${dataType} [${shape.join(', ')}]`).join(', ');
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, ' ').trim().replace(/\.$/, '').slice(0, 500);
}
