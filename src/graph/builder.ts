import { BugError } from '../errors.js';
import { findGraphProblem } from './validate.js';

import type {
  Attribute,
  DataType,
  Dimension,
  Graph,
  GraphNode,
  Initializer,
  ValueInfo,
  WeightSource,
} from './ir.js';

/** What is known of a value a node produces; `null` stands for an optional output that is not wanted. */
export interface OutputSpec {
  /** Absent: derived from the node's name. */
  readonly name?: string;
  readonly dataType: DataType;
  readonly shape: readonly Dimension[];
}

export interface NodeSpec {
  readonly opType: string;
  /** Default: the standard ONNX domain. */
  readonly domain?: string;
  /** An absent optional input is ''. */
  readonly inputs: readonly string[];
  readonly outputs: readonly (OutputSpec | null)[];
  readonly attributes?: Readonly<Record<string, Attribute>>;
}

export interface WeightOptions {
  /** Type of the initializer when it differs from its members': float32, for 16-bit members to widen. */
  readonly as?: DataType;
  /** Added to every element after widening. */
  readonly addend?: number;
}

interface BuilderState {
  readonly name: string;
  readonly opsets: ReadonlyMap<string, number>;
  readonly inputs: ValueInfo[];
  readonly outputs: ValueInfo[];
  readonly nodes: GraphNode[];
  readonly nodeNames: Set<string>;
  readonly initializers: Map<string, Initializer>;
  readonly values: Map<string, ValueInfo>;
  readonly metadata: Map<string, string>;
}

/**
 * Builds a graph front to back: a node can only read what was added before it, so the nodes are in
 * topological order by construction. Values and initializers are referred to by name.
 */
export class GraphBuilder {
  readonly #state: BuilderState;
  readonly #prefix: string;

  private constructor(state: BuilderState, prefix: string) {
    this.#state = state;
    this.#prefix = prefix;
  }

  /** `opsets`: domain → version, for every domain that nodes will use. */
  static create(name: string, opsets: ReadonlyMap<string, number>): GraphBuilder {
    return new GraphBuilder(
      {
        name,
        opsets,
        inputs: [],
        outputs: [],
        nodes: [],
        nodeNames: new Set(),
        initializers: new Map(),
        values: new Map(),
        metadata: new Map(),
      },
      '',
    );
  }

  /** The same graph, with node and constant names under `path`, e.g. `layers.3` or `model/layers.3`. */
  scope(path: string): GraphBuilder {
    return new GraphBuilder(this.#state, `${this.#prefix}/${path}`);
  }

  input(name: string, dataType: DataType, shape: readonly Dimension[]): string {
    this.#state.inputs.push(this.#define({ name, dataType, shape }));
    return name;
  }

  /** Makes a value that a node produced an output of the graph. */
  output(name: string): void {
    this.#state.outputs.push(this.valueInfo(name));
  }

  metadata(key: string, value: string): void {
    this.#state.metadata.set(key, value);
  }

  /** Adds a node and returns the names of its outputs, '' for those not wanted. */
  node(spec: NodeSpec): readonly string[] {
    const name = this.#uniqueNodeName(`${this.#prefix}/${spec.opType}`);
    for (const input of spec.inputs) {
      if (input !== '' && !this.#isDefined(input))
        throw new BugError(`Node "${name}" reads "${input}", which is not defined`);
    }
    const outputs = spec.outputs.map((output, index) =>
      output === null ? '' : this.#define({ ...output, name: output.name ?? `${name}_output_${index}` }).name,
    );
    this.#state.nodes.push({
      name,
      opType: spec.opType,
      domain: spec.domain ?? '',
      inputs: spec.inputs,
      outputs,
      attributes: spec.attributes ?? {},
    });
    return outputs;
  }

  /** `node` for the common case of exactly one output. */
  value(spec: Omit<NodeSpec, 'outputs'> & { readonly output: OutputSpec }): string {
    const { output, ...rest } = spec;
    return this.node({ ...rest, outputs: [output] })[0] as string;
  }

  /** A small constant kept in the model itself, named under the current scope. */
  constant(name: string, dataType: DataType, shape: readonly number[], values: ArrayBufferView): string {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
    return this.#addInitializer({
      name: `${this.#prefix}/${name}`,
      dataType,
      shape,
      data: { kind: 'inline', bytes },
    });
  }

  /** The constant of that name under the current scope, added when it is asked for first. */
  constantOnce(name: string, dataType: DataType, shape: readonly number[], values: ArrayBufferView): string {
    const full = `${this.#prefix}/${name}`;
    return this.#isDefined(full) ? full : this.constant(name, dataType, shape, values);
  }

  /** An initializer of any kind, under its own name. */
  initializer(initializer: Initializer): string {
    return this.#addInitializer(initializer);
  }

  /**
   * A lazy initializer of checkpoint tensors concatenated along axis 0. The name is global: weights keep the
   * names users know from the checkpoint.
   */
  weight(name: string, members: readonly WeightSource[], options: WeightOptions = {}): string {
    const first = members[0];
    if (first === undefined) throw new BugError(`Weight "${name}" has no members`);
    const dataType = options.as ?? first.dataType;
    for (const member of members) {
      const widens =
        dataType === 'float32' && (member.dataType === 'float16' || member.dataType === 'bfloat16');
      if (member.dataType !== dataType && !(widens && options.as !== undefined)) {
        throw new BugError(
          `Weight "${name}" is ${dataType} but its member "${member.name}" is ${member.dataType}`,
        );
      }
      if (member.shape.slice(1).join() !== first.shape.slice(1).join() || member.shape.length === 0) {
        throw new BugError(
          `Members "${first.name}" and "${member.name}" of weight "${name}" cannot be stacked`,
        );
      }
    }
    const rows = members.reduce((sum, member) => sum + (member.shape[0] as number), 0);
    return this.#addInitializer({
      name,
      dataType,
      shape: [rows, ...first.shape.slice(1)],
      data: { kind: 'weight', members, ...(options.addend === undefined ? {} : { addend: options.addend }) },
    });
  }

  /** Type and shape of an input, an initializer or a node's output. */
  valueInfo(name: string): ValueInfo {
    const value = this.#state.values.get(name) ?? this.#state.initializers.get(name);
    if (value === undefined) throw new BugError(`Value "${name}" is not defined`);
    return { name, dataType: value.dataType, shape: value.shape };
  }

  build(): Graph {
    const { name, opsets, inputs, outputs, nodes, initializers, metadata } = this.#state;
    const edges = new Set([...inputs, ...outputs].map((value) => value.name));
    const graph: Graph = {
      name,
      opsets: new Map(opsets),
      inputs: [...inputs],
      outputs: [...outputs],
      nodes: [...nodes],
      initializers: new Map(initializers),
      values: new Map([...this.#state.values].filter(([value]) => !edges.has(value))),
      metadata: new Map(metadata),
    };
    const problem = findGraphProblem(graph);
    if (problem !== undefined) throw new BugError(`Graph "${name}" is not valid: ${problem}`);
    return graph;
  }

  #isDefined(name: string): boolean {
    return this.#state.values.has(name) || this.#state.initializers.has(name);
  }

  #define(value: ValueInfo): ValueInfo {
    if (this.#isDefined(value.name)) throw new BugError(`Value "${value.name}" is defined twice`);
    this.#state.values.set(value.name, value);
    return value;
  }

  #addInitializer(initializer: Initializer): string {
    if (this.#isDefined(initializer.name))
      throw new BugError(`Initializer "${initializer.name}" is defined twice`);
    this.#state.initializers.set(initializer.name, initializer);
    return initializer.name;
  }

  #uniqueNodeName(base: string): string {
    let name = base;
    for (let copy = 1; this.#state.nodeNames.has(name); copy++) name = `${base}_${copy}`;
    this.#state.nodeNames.add(name);
    return name;
  }
}

export function intAttribute(value: number): Attribute {
  return { type: 'int', value };
}

/** ONNX keeps floats in 32 bits; rounding here makes what the graph says equal to what a file of it says. */
export function floatAttribute(value: number): Attribute {
  return { type: 'float', value: Math.fround(value) };
}

export function stringAttribute(value: string): Attribute {
  return { type: 'string', value };
}
