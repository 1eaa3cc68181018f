import { dataTypeOf } from './data-types.js';
import { invalidModel, unsupportedModel } from './onnx-problems.js';
import { readAttribute } from './onnx-attributes.js';
import { readDataType, readInitializer, toSafeInteger } from './onnx-tensors.js';
import { findGraphProblem } from './validate.js';

import type {
  Attribute,
  BodyValue,
  Dimension,
  Graph,
  GraphNode,
  Initializer,
  Subgraph,
  ValueInfo,
} from './ir.js';
import type { onnx } from 'onnx-proto';

export interface ParseOptions {
  /** Folder of the model: external data must lie in it. */
  readonly dir: string;
  /** The file as messages call it. */
  readonly file?: string;
  /** What to do when it is damaged; absent: to export or download it again. */
  readonly remedy?: string;
}

/** Bodies in bodies; deeper ones are not models. */
const MAX_DEPTH = 16;

interface ReadContext extends ParseOptions {
  /** How often each node name was given in the whole model. */
  readonly nodeNames: Map<string, number>;
  /** Bodies around this one. */
  readonly depth: number;
}

export function readGraph(
  proto: onnx.IGraphProto,
  model: Pick<Graph, 'opsets' | 'metadata'>,
  options: ParseOptions,
): Graph {
  const parts = readParts(proto, { ...options, nodeNames: new Map(), depth: 0 });
  const inputs = (proto.input ?? []).map((value) => readValueInfo(value, 'Input'));
  const graph: Graph = {
    ...parts,
    ...model,
    // Before IR version 4 every initializer was also an input.
    inputs: inputs.filter((input) => !parts.initializers.has(input.name)),
    outputs: (proto.output ?? []).map((value) => readValueInfo(value, 'Output')),
    metadata: model.metadata,
  };
  const problem = findGraphProblem(graph);
  if (problem !== undefined) throw invalidModel(`The ONNX graph is not valid: ${problem}`);
  return graph;
}

function readBody(proto: onnx.IGraphProto, context: ReadContext): Subgraph {
  if (context.depth > MAX_DEPTH) throw unsupportedModel(`The model nests bodies deeper than ${MAX_DEPTH}`);
  const parts = readParts(proto, context);
  return {
    ...parts,
    inputs: (proto.input ?? []).map(readBodyValue),
    outputs: (proto.output ?? []).map(readBodyValue),
  };
}

function readParts(
  proto: onnx.IGraphProto,
  context: ReadContext,
): Pick<Graph, 'name' | 'nodes' | 'initializers' | 'values'> {
  if ((proto.sparseInitializer ?? []).length > 0) throw unsupportedModel('The model has sparse initializers');
  const initializers = new Map<string, Initializer>();
  const addInitializer = (tensor: onnx.ITensorProto, name: string): void => {
    if (name === '' || initializers.has(name))
      throw invalidModel(`Initializer "${name}" has no name or a name used twice`);
    initializers.set(name, readInitializer(tensor, name, context.dir));
  };
  for (const tensor of proto.initializer ?? []) addInitializer(tensor, tensor.name ?? '');
  const nodes: GraphNode[] = [];
  for (const node of proto.node ?? []) {
    const constant = findConstantTensor(node);
    if (constant === undefined) nodes.push(readNode(node, context));
    else addInitializer(constant, node.output?.[0] ?? '');
  }
  return { name: proto.name ?? '', nodes, initializers, values: readValues(proto.valueInfo ?? []) };
}

/** Types of bodies are optional; those fdq cannot express would change when they were left out. */
function readBodyValue(value: onnx.IValueInfoProto): BodyValue {
  const name = value.name ?? '';
  const what = `Value "${name}"`;
  const { type } = value;
  if (!type) return { name };
  const tensor = type.tensorType;
  if (!tensor) throw unsupportedModel(`${what} is not a dense tensor`);
  if ((tensor.elemType ?? 0) === 0) return { name };
  const dataType = readDataType(tensor.elemType ?? 0, what);
  if (!tensor.shape) return { name, dataType };
  return {
    name,
    dataType,
    shape: (tensor.shape.dim ?? []).map((dimension) => readDimension(dimension, what)),
  };
}

/** The tensor of a Constant node: such a node is an initializer written differently. */
function findConstantTensor(node: onnx.INodeProto): onnx.ITensorProto | undefined {
  if (node.opType !== 'Constant' || (node.domain ?? '') !== '') return undefined;
  const value = (node.attribute ?? []).find((attribute) => attribute.name === 'value');
  const sparse = (node.attribute ?? []).some((attribute) => attribute.sparseTensor);
  if (sparse) throw unsupportedModel(`Constant node "${node.name ?? ''}" holds a sparse tensor`);
  return value?.t ?? undefined;
}

/**
 * Names are optional in ONNX and need not be unique, but the quantizer addresses nodes by them. `copies` counts
 * how often each name was given, so that many nodes of one name cost no more than others.
 */
function readNodeName(node: onnx.INodeProto, copies: Map<string, number>): string {
  const given = node.name ?? '';
  const base = given === '' ? `/${node.opType ?? ''}` : given;
  let name = base;
  let copy = copies.get(base) ?? 0;
  while (copies.has(name)) name = `${base}_${++copy}`;
  copies.set(base, copy);
  copies.set(name, copies.get(name) ?? 0);
  return name;
}

function readNode(node: onnx.INodeProto, context: ReadContext): GraphNode {
  const opType = node.opType ?? '';
  const name = readNodeName(node, context.nodeNames);
  const deeper = { ...context, depth: context.depth + 1 };
  const attributes = new Map<string, Attribute>();
  for (const attribute of node.attribute ?? []) {
    if (attributes.has(attribute.name ?? ''))
      throw invalidModel(`Node "${name}" has the attribute "${attribute.name ?? ''}" twice`);
    attributes.set(
      attribute.name ?? '',
      readAttribute(attribute, name, (body) => readBody(body, deeper)),
    );
  }
  return {
    name,
    opType,
    domain: node.domain === 'ai.onnx' ? '' : (node.domain ?? ''),
    inputs: node.input ?? [],
    outputs: node.output ?? [],
    attributes: Object.fromEntries(attributes),
  };
}

function readValueInfo(value: onnx.IValueInfoProto, role: string): ValueInfo {
  const what = `${role} "${value.name ?? ''}"`;
  const tensor = value.type?.tensorType;
  if (!tensor) throw unsupportedModel(`${what} is not a dense tensor`);
  if (!tensor.shape) throw unsupportedModel(`${what} has no declared number of dimensions`);
  return {
    name: value.name ?? '',
    dataType: readDataType(tensor.elemType ?? 0, what),
    shape: (tensor.shape.dim ?? []).map((dimension) => readDimension(dimension, what)),
  };
}

/** Shapes of intermediate values are a hint: those fdq cannot express are left out. */
function readValues(protos: readonly onnx.IValueInfoProto[]): ReadonlyMap<string, ValueInfo> {
  const values = new Map<string, ValueInfo>();
  for (const proto of protos) {
    const tensor = proto.type?.tensorType;
    if (!tensor?.shape || dataTypeOf(tensor.elemType ?? 0) === undefined) continue;
    values.set(proto.name ?? '', readValueInfo(proto, 'Value'));
  }
  return values;
}

/** A dimension that is neither a size nor named is ''. */
function readDimension(dimension: onnx.TensorShapeProto.IDimension, what: string): Dimension {
  if (dimension.dimValue === null || dimension.dimValue === undefined || dimension.dimParam)
    return dimension.dimParam ?? '';
  const size = toSafeInteger(dimension.dimValue, `a dimension of ${what}`);
  if (size < 0) throw invalidModel(`${what} has the negative dimension ${size}`);
  return size;
}
