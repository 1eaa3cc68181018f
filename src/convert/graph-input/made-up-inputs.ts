import type { DataType, Dimension, Graph, GraphNode, ValueInfo } from '../../graph/ir.js';
import { findDefinition, listScopes, type Scope } from '../../graph/scopes.js';
import { encodeFp16 } from '../../quant/numerics/fp16.js';
import { refuseInputs } from './verify-problems.js';

/** A dense tensor as onnxruntime-node takes it; float16 as its bits. */
export interface MadeUpInput {
  readonly name: string;
  readonly dataType: InputType;
  readonly shape: readonly number[];
  readonly data:
    Float32Array | Float64Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array | Int8Array;
}

type InputType = Extract<
  DataType,
  'float32' | 'float64' | 'float16' | 'int64' | 'int32' | 'int8' | 'uint8' | 'bool'
>;

/** Size of dimensions that the model leaves open. */
const OPEN_SIZE = 8;
const SEED = 0x5eed;
/** Of integers that nothing bounds: a mask of ones, a first position, two rounds of a loop at most. */
const UNBOUNDED = 1;
/** What may lie between an input and the Gather that reads rows by it. */
const CARRIERS = new Set(['Cast', 'Reshape', 'Identity', 'Squeeze', 'Unsqueeze', 'Flatten', 'Clip']);
const MAX_STEPS = 8;

/**
 * Inputs for a model nobody has given inputs for, the same at every call: floats in -1 .. 1; integers below the size of
 * the constant a Gather reads by them, else ones. Open dimensions are 8, but a batch is 1 and the past is empty.
 * @throws UnsupportedError `unsupported_model` naming an input of another type
 */
export function makeInputs(graph: Graph): readonly MadeUpInput[] {
  const random = seeded(SEED);
  const scopes = listScopes(graph);
  return graph.inputs.map((input) => {
    const shape = input.shape.map(sizeOf);
    const count = shape.reduce((product, size) => product * size, 1);
    const dataType = typeOf(input);
    const bound = findBound(scopes, input.name);
    return { name: input.name, dataType, shape, data: fill(dataType, count, { bound, random }) };
  });
}

function sizeOf(dimension: Dimension): number {
  if (typeof dimension === 'number') return dimension;
  if (/past/i.test(dimension) && !/total/i.test(dimension)) return 0;
  return /batch/i.test(dimension) ? 1 : OPEN_SIZE;
}

function typeOf({ name, dataType }: ValueInfo): InputType {
  switch (dataType) {
    case 'float32':
    case 'float64':
    case 'float16':
    case 'int64':
    case 'int32':
    case 'int8':
    case 'uint8':
    case 'bool':
      return dataType;
    default:
      throw refuseInputs(`the input "${name}" is ${dataType}`);
  }
}

function fill(
  dataType: InputType,
  count: number,
  { bound, random }: { readonly bound: number | undefined; readonly random: () => number },
): MadeUpInput['data'] {
  const floats = (): number[] => Array.from({ length: count }, () => 2 * random() - 1);
  const integers = Array.from({ length: count }, () =>
    bound === undefined ? UNBOUNDED : Math.floor(random() * bound),
  );
  switch (dataType) {
    case 'float32':
      return Float32Array.from(floats());
    case 'float64':
      return Float64Array.from(floats());
    case 'float16':
      return Uint16Array.from(floats(), encodeFp16);
    case 'int64':
      return BigInt64Array.from(integers, BigInt);
    case 'int32':
      return Int32Array.from(integers);
    case 'int8':
      return Int8Array.from(integers);
    case 'uint8':
    case 'bool':
      return Uint8Array.from(integers);
  }
}

/** Rows of the smallest constant that a Gather picks from by this input; undefined for none. */
function findBound(scopes: readonly Scope[], input: string): number | undefined {
  const sizes = scopes.flatMap((scope) =>
    scope.graph.nodes.flatMap((node) => {
      if (!picksBy(scope, node, input)) return [];
      const table = findDefinition(scope, node.inputs[0] as string)?.initializer;
      const axis = node.attributes['axis'];
      return table?.shape.at(axis?.type === 'int' ? axis.value : 0) ?? [];
    }),
  );
  return sizes.length === 0 ? undefined : Math.min(...sizes);
}

function picksBy(scope: Scope, { opType, inputs }: GraphNode, input: string): boolean {
  if (!/^Gather(?:Elements|BlockQuantized)?$/.test(opType)) return false;
  let name = inputs[1] ?? '';
  for (let step = 0; step < MAX_STEPS && name !== input; step++) {
    const producer = findDefinition(scope, name)?.producer;
    if (producer === undefined || !CARRIERS.has(producer.opType)) return false;
    name = producer.inputs[0] ?? '';
  }
  return name === input;
}

/** Numbers in 0 .. 1 of a linear congruential generator (Numerical Recipes). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
