import { byteLengthOf } from '../../graph/data-types.js';
import type { Graph, GraphNode, Initializer, WeightSource } from '../../graph/ir.js';
import { intAttribute } from '../../graph/builder.js';
import type { Scope } from '../../graph/scopes.js';

/** Type in which a layer of a foreign graph takes and gives its values. */
export type LayerType = 'float32' | 'float16' | 'bfloat16';

/** A constant matrix of a foreign graph as the quantizer reads it. */
export interface Matrix {
  readonly initializer: Initializer;
  /** [n, k]; experts are stacked along n. */
  readonly shape: readonly [number, number];
  /** The initializer is [k, n]. */
  readonly transposed: boolean;
}

/** A MatMul or Gemm. */
export interface FoundLayer {
  readonly node: GraphNode;
  readonly scope: Scope;
  readonly type: LayerType;
  readonly k: number;
  /** Added to the product; '' for none. */
  readonly bias: string;
  /** Name of the product in the view. */
  readonly output: string;
}

/** The matrices of a MoE. */
export interface FoundExperts {
  readonly node: GraphNode;
  readonly type: Exclude<LayerType, 'bfloat16'>;
  /** [experts, n, k] of fc1 and fc2, and the name of each product in the view. */
  readonly parts: readonly { readonly shape: readonly number[]; readonly output: string }[];
}

/** The linear layers of a foreign graph and of its bodies, by themselves. */
export interface LayerView {
  /** One Gemm [tokens, k] x [n, k]^T for each matrix that is multiplied: what a plan and the quantizer see. */
  readonly graph: Graph;
  /** By node name. */
  readonly layers: ReadonlyMap<string, FoundLayer>;
  readonly experts: ReadonlyMap<string, FoundExperts>;
  /** The initializer of the model behind each one of `graph`, by the name of that. */
  readonly origins: ReadonlyMap<string, Initializer>;
  /** Node names → why a product with a constant matrix stays as it is. */
  readonly skipped: ReadonlyMap<string, string>;
  /** Weights that lie in the .onnx file itself, which `inlineFile` is to hold one after the other. */
  readonly inline: readonly Uint8Array[];
}

const WEIGHT_SUFFIX = /(?:\.MatMul)?\.weight$/;
/** What may come behind the name of a matrix when it is quantized. */
const SUFFIXES = ['', '.scales', '.scales.float16'] as const;

/** Collects matrices; those of several layers that are one initializer stay one. */
export class ViewBuilder {
  readonly #nodes: GraphNode[] = [];
  readonly #inputs: Graph['inputs'][number][] = [];
  readonly #initializers = new Map<string, Initializer>();
  /** Names of matrices by what they are, as stored and transposed: a tied embedding may be read both ways. */
  readonly #known = new Map<Initializer, Map<boolean, string>>();
  readonly #taken: Set<string>;
  readonly #spill: Spill;

  /** @param taken names that nothing new may have */
  constructor(inlineFile: string, taken: Iterable<string>) {
    this.#spill = new Spill(inlineFile);
    this.#taken = new Set(taken);
  }

  get inline(): readonly Uint8Array[] {
    return this.#spill.pieces;
  }

  get origins(): ReadonlyMap<string, Initializer> {
    return new Map(
      [...this.#known].flatMap(([initializer, names]) =>
        [...names.values()].map((name) => [name, initializer] as const),
      ),
    );
  }

  /** @returns the name of the product */
  add(name: string, matrix: Matrix): string {
    const input = `${name}:x`;
    const output = `${name}:y`;
    this.#inputs.push({ name: input, dataType: 'float32', shape: ['tokens', matrix.shape[1]] });
    this.#nodes.push({
      name,
      domain: '',
      opType: 'Gemm',
      inputs: [input, this.#addWeight(matrix)],
      outputs: [output],
      attributes: { transB: intAttribute(1) },
    });
    return output;
  }

  build(source: Graph): Graph {
    return {
      ...source,
      inputs: this.#inputs,
      outputs: [],
      nodes: this.#nodes,
      initializers: this.#initializers,
      values: new Map(),
    };
  }

  #addWeight(matrix: Matrix): string {
    const { initializer, transposed } = matrix;
    const names = this.#known.get(initializer) ?? new Map<boolean, string>();
    const known = names.get(transposed);
    if (known !== undefined) return known;
    const name = this.#claim(`${initializer.name}${transposed ? '.transposed' : ''}.quantized`);
    this.#known.set(initializer, names.set(transposed, name));
    const { dataType } = initializer;
    const members = [this.#sourceOf(matrix)];
    this.#initializers.set(name, { name, dataType, shape: matrix.shape, data: { kind: 'weight', members } });
    return name;
  }

  #claim(wanted: string): string {
    let name = wanted;
    const isTaken = (suffix: string): boolean => this.#taken.has(`${name}${suffix}`);
    for (let copy = 1; SUFFIXES.some(isTaken); copy++) name = `${wanted}_${copy}`;
    for (const suffix of SUFFIXES) this.#taken.add(`${name}${suffix}`);
    return name;
  }

  #sourceOf({ initializer, shape, transposed }: Matrix): WeightSource {
    const { name, dataType, data } = initializer;
    const place = data.kind === 'external' ? data : this.#spill.place(initializer);
    return {
      name: `${name.replace(WEIGHT_SUFFIX, '')}.weight`,
      dataType,
      shape,
      file: place.file,
      offset: place.offset,
      byteLength: byteLengthOf(dataType, shape),
      ...(transposed ? { transposed: true } : {}),
    };
  }
}

/** Gives weights inside of the model a place in a file. */
class Spill {
  readonly pieces: Uint8Array[] = [];
  readonly #file: string;
  readonly #offsets = new Map<Initializer, number>();
  #end = 0;

  constructor(file: string) {
    this.#file = file;
  }

  place(initializer: Initializer): { readonly file: string; readonly offset: number } {
    const known = this.#offsets.get(initializer);
    if (known !== undefined) return { file: this.#file, offset: known };
    const bytes = initializer.data.kind === 'inline' ? initializer.data.bytes : new Uint8Array();
    const offset = this.#end;
    this.#offsets.set(initializer, offset);
    this.pieces.push(bytes);
    this.#end += bytes.byteLength;
    return { file: this.#file, offset };
  }
}
