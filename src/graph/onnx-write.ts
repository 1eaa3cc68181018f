import path from 'node:path';

import { BugError } from '../errors.js';
import { byteLengthOf, elementTypeOf } from './data-types.js';
import { writeAttribute } from './onnx-attributes.js';

import type { BodyValue, Dimension, Graph, Initializer, Subgraph } from './ir.js';
import type { onnx } from 'onnx-proto';

/** TensorProto.DataLocation */
const EXTERNAL = 1;
/** Stands for memory that is handed to the session; ONNX Runtime wants the file to exist, its content is not read. */
export const LAZY_LOCATION = 'fdq-weights';

export interface SerializeOptions {
  /**
   * Folder the model will lie in: absolute paths of external data become relative to it. Absent: relative to
   * the root of the file system, where ONNX Runtime's folder option can point.
   */
  readonly dir?: string;
}

export function writeGraph(graph: Graph | Subgraph, options: SerializeOptions): onnx.IGraphProto {
  const writeBody = (body: Subgraph): onnx.IGraphProto => writeGraph(body, options);
  return {
    name: graph.name,
    node: graph.nodes.map((node) => ({
      name: node.name,
      opType: node.opType,
      domain: node.domain,
      input: [...node.inputs],
      output: [...node.outputs],
      attribute: Object.entries(node.attributes).map(([name, attribute]) =>
        writeAttribute(name, attribute, writeBody),
      ),
    })),
    initializer: [...graph.initializers.values()].map((initializer) =>
      writeInitializer(initializer, options),
    ),
    input: graph.inputs.map(writeValueInfo),
    output: graph.outputs.map(writeValueInfo),
    valueInfo: [...graph.values.values()].map(writeValueInfo),
  };
}

function writeValueInfo({ name, dataType, shape }: BodyValue): onnx.IValueInfoProto {
  if (dataType === undefined) return { name };
  const elemType = elementTypeOf(dataType);
  const dims = shape === undefined ? {} : { shape: { dim: shape.map(writeDimension) } };
  return { name, type: { tensorType: { elemType, ...dims } } };
}

function writeDimension(dimension: Dimension): onnx.TensorShapeProto.IDimension {
  if (typeof dimension === 'number') return { dimValue: dimension };
  return dimension === '' ? {} : { dimParam: dimension };
}

function writeInitializer(
  { name, dataType, shape, data }: Initializer,
  options: SerializeOptions,
): onnx.ITensorProto {
  const tensor = { name, dataType: elementTypeOf(dataType), dims: [...shape] };
  switch (data.kind) {
    case 'inline':
      return { ...tensor, rawData: data.bytes };
    case 'external':
      return external(
        tensor,
        locationOf(data.file, options.dir ?? path.parse(data.file).root),
        data.offset,
        data.byteLength,
      );
    case 'weight':
    case 'quantized':
      return external(tensor, LAZY_LOCATION, 0, byteLengthOf(dataType, shape));
  }
}

function external(
  tensor: onnx.ITensorProto,
  location: string,
  offset: number,
  byteLength: number,
): onnx.ITensorProto {
  const entries = { location, offset: String(offset), length: String(byteLength) };
  return {
    ...tensor,
    dataLocation: EXTERNAL,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value })),
  };
}

function locationOf(file: string, dir: string): string {
  const location = path.isAbsolute(file) ? path.relative(dir, file) : file;
  if (location === '' || location.split(path.sep).includes('..')) {
    throw new BugError(`External data file "${file}" does not lie under the model's folder "${dir}"`);
  }
  return location.split(path.sep).join('/');
}
