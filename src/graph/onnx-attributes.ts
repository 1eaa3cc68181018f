import { invalidModel, unsupportedModel } from './onnx-problems.js';
import { elementTypeOf } from './data-types.js';
import { readInitializer, toSafeInteger } from './onnx-tensors.js';

import type { Attribute, Subgraph, TensorValue } from './ir.js';
import type { onnx } from 'onnx-proto';

/** AttributeProto.AttributeType */
const TYPE = {
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  floats: 6,
  ints: 7,
  strings: 8,
  graph: 5,
  graphs: 10,
} as const;

export function writeAttribute(
  name: string,
  attribute: Attribute,
  writeBody: (body: Subgraph) => onnx.IGraphProto,
): onnx.IAttributeProto {
  const type = TYPE[attribute.type];
  switch (attribute.type) {
    case 'int':
      return { name, type, i: attribute.value };
    case 'float':
      return { name, type, f: attribute.value };
    case 'string':
      return { name, type, s: new TextEncoder().encode(attribute.value) };
    case 'ints':
      return { name, type, ints: [...attribute.value] };
    case 'floats':
      return { name, type, floats: [...attribute.value] };
    case 'strings':
      return { name, type, strings: attribute.value.map((value) => new TextEncoder().encode(value)) };
    case 'tensor': {
      const { dataType, shape, bytes } = attribute.value;
      return { name, type, t: { dataType: elementTypeOf(dataType), dims: [...shape], rawData: bytes } };
    }
    case 'graph':
      return { name, type, g: writeBody(attribute.value) };
    case 'graphs':
      return { name, type, graphs: attribute.value.map(writeBody) };
  }
}

/** `owner` names the node in messages. */
export function readAttribute(
  attribute: onnx.IAttributeProto,
  owner: string,
  readBody: (body: onnx.IGraphProto) => Subgraph,
): Attribute {
  const what = `attribute "${attribute.name ?? ''}" of node "${owner}"`;
  if (attribute.refAttrName) throw unsupportedModel(`The ${what} refers to a function's attribute`);
  switch (attribute.type as number | null | undefined) {
    case TYPE.int:
      return { type: 'int', value: toSafeInteger(attribute.i ?? 0, what) };
    case TYPE.float:
      return { type: 'float', value: attribute.f ?? 0 };
    case TYPE.string:
      return { type: 'string', value: readText(attribute.s, what) };
    case TYPE.ints:
      return { type: 'ints', value: (attribute.ints ?? []).map((value) => toSafeInteger(value, what)) };
    case TYPE.floats:
      return { type: 'floats', value: attribute.floats ?? [] };
    case TYPE.strings:
      return { type: 'strings', value: (attribute.strings ?? []).map((value) => readText(value, what)) };
    case TYPE.tensor:
      return { type: 'tensor', value: readTensor(attribute.t ?? {}, what) };
    case TYPE.graph:
      return { type: 'graph', value: readBody(attribute.g ?? {}) };
    case TYPE.graphs:
      return { type: 'graphs', value: (attribute.graphs ?? []).map(readBody) };
    default:
      throw unsupportedModel(`The ${what} is of type ${attribute.type ?? 0}, which fdq does not know`);
  }
}

function readTensor(tensor: onnx.ITensorProto, what: string): TensorValue {
  if ((tensor.externalData ?? []).length > 0) throw unsupportedModel(`The ${what} lies in a file of its own`);
  const { dataType, shape, data } = readInitializer(tensor, what, '');
  if (data.kind !== 'inline') throw unsupportedModel(`The ${what} lies in a file of its own`);
  return { dataType, shape, bytes: data.bytes };
}

function readText(bytes: Uint8Array | null | undefined, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes ?? new Uint8Array());
  } catch (error) {
    throw invalidModel(`The ${what} is not UTF-8 text`, error);
  }
}
