import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';

import { FdqError } from '../../../src/errors.js';
import type { Graph } from '../../../src/graph/ir.js';
import { parseModel, serializeModel } from '../../../src/graph/onnx.js';
import { bodiesOf, readsOf } from '../../../src/graph/scopes.js';

import type { onnx } from 'onnx-proto';

const FLOAT_VECTOR: onnx.ITypeProto = { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }] } } };
const IDENTITY: onnx.INodeProto = { opType: 'Identity', input: ['x'], output: ['y'] };
const GRAPH: onnx.IGraphProto = {
  node: [IDENTITY],
  input: [{ name: 'x', type: FLOAT_VECTOR }],
  output: [{ name: 'y', type: FLOAT_VECTOR }],
};

function encode(graph: onnx.IGraphProto, model: onnx.IModelProto = {}): Uint8Array {
  const opsetImport = [{ domain: '', version: 21 }];
  return onnxProto.onnx.ModelProto.encode({ irVersion: 10, opsetImport, graph, ...model }).finish();
}

/** Bodies in bodies. */
function nest(depth: number): onnx.IGraphProto {
  const inner = depth === 0 ? [] : [{ name: 'body', type: 5, g: nest(depth - 1) }];
  return { node: [{ opType: 'If', input: ['x'], output: ['z'], attribute: inner }] };
}

function parse(changes: onnx.IGraphProto, model?: onnx.IModelProto): Graph {
  return parseModel(encode({ ...GRAPH, ...changes }, model), { dir: '/' });
}

function errorOf(act: () => unknown): FdqError {
  try {
    act();
  } catch (error) {
    if (error instanceof FdqError) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('parseModel', () => {
  it('names nodes that have no name or share one', () => {
    const given = [undefined, undefined, 'n', 'n_1', 'n', 'n'];
    const node = given.map((name, index) => ({
      ...IDENTITY,
      ...(name === undefined ? {} : { name }),
      output: [`y${index}`],
    }));
    const { nodes } = parse({ node, output: [] });
    expect(nodes.map(({ name }) => name)).toEqual(['/Identity', '/Identity_1', 'n', 'n_1', 'n_2', 'n_3']);
  });

  it('names many nodes of one name in linear time', () => {
    const node = Array.from({ length: 50_000 }, (_, index) => ({
      ...IDENTITY,
      name: 'n',
      output: [`y${index}`],
    }));
    const names = parse({ node, output: [] }).nodes.map(({ name }) => name);
    expect(new Set(names).size).toBe(50_000);
    expect(names.at(-1)).toBe('n_49999');
  });

  it('treats ai.onnx as the standard domain', () => {
    const model = { opsetImport: [{ domain: 'ai.onnx', version: 20 }] };
    const graph = parse({ node: [{ ...IDENTITY, domain: 'ai.onnx' }] }, model);
    expect(graph.opsets).toEqual(new Map([['', 20]]));
    expect(graph.nodes[0]?.domain).toBe('');
  });

  it('does not list initializers as inputs', () => {
    const initializer = [{ name: 'w', dataType: 1, dims: [2], floatData: [1, 2] }];
    const input = [...(GRAPH.input ?? []), { name: 'w', type: FLOAT_VECTOR }];
    expect(parse({ initializer, input }).inputs.map(({ name }) => name)).toEqual(['x']);
  });

  it('keeps bodies, whose names may hide those around them, and writes them again', () => {
    const tensor = (name: string) => ({ name, dataType: 1, dims: [2], floatData: [1, 2] });
    const body: onnx.IGraphProto = {
      input: [{ name: 'i' }, { name: 'h', type: { tensorType: { elemType: 1 } } }],
      output: [{ name: 'o', type: FLOAT_VECTOR }],
      node: [
        { opType: 'Constant', output: ['w'], attribute: [{ name: 'value', type: 4, t: tensor('') }] },
        { opType: 'Add', name: 'same', input: ['x', 'w'], output: ['o'] },
      ],
    };
    const attribute = [
      { name: 'body', type: 5, g: body },
      { name: 'others', type: 10, graphs: [body] },
    ];
    const node = [{ opType: 'Loop', name: 'same', input: ['w'], output: ['y'], attribute }];
    const graph = parse({ node, initializer: [tensor('w')] });
    const [loop] = graph.nodes;
    const bodies = bodiesOf(loop!);
    expect(bodies.map(({ nodes }) => nodes.map(({ name }) => name))).toEqual([['same_1'], ['same_2']]);
    expect(loop?.name).toBe('same');
    expect(bodies[0]).toMatchObject({
      inputs: [{ name: 'i' }, { name: 'h', dataType: 'float32' }],
      outputs: [{ name: 'o', dataType: 'float32', shape: [2] }],
    });
    expect(readsOf(loop!)).toEqual(['w', 'x', 'x']);
    expect(parseModel(serializeModel(graph), { dir: '/' })).toEqual(graph);
  });

  it('reads a Constant node as an initializer', () => {
    const t = { dataType: 7, dims: [1], int64Data: [-5] };
    const constant = { opType: 'Constant', output: ['c'], attribute: [{ name: 'value', type: 4, t }] };
    const graph = parse({ node: [constant, IDENTITY] });
    expect(graph.nodes.map(({ opType }) => opType)).toEqual(['Identity']);
    const data = graph.initializers.get('c')?.data;
    expect(data?.kind === 'inline' && new BigInt64Array(data.bytes.slice().buffer)).toEqual(
      BigInt64Array.of(-5n),
    );
  });

  it('leaves out shapes of intermediate values that it cannot express', () => {
    const known = { name: 'y0', type: FLOAT_VECTOR };
    const valueInfo = [
      known,
      { name: 'a' },
      { name: 'b', type: { tensorType: { elemType: 1 } } },
      { name: 'c', type: { tensorType: { elemType: 8, shape: {} } } },
    ];
    expect([...parse({ valueInfo }).values.keys()]).toEqual(['y0']);
  });

  const typed: Record<string, [onnx.ITensorProto, readonly number[]]> = {
    float_data: [{ dataType: 1, dims: [1], floatData: [1] }, [0, 0, 0x80, 0x3f]],
    double_data: [{ dataType: 11, dims: [1], doubleData: [1] }, [0, 0, 0, 0, 0, 0, 0xf0, 0x3f]],
    'int32_data of int32': [{ dataType: 6, dims: [1], int32Data: [-2] }, [0xfe, 0xff, 0xff, 0xff]],
    'int32_data of bfloat16': [
      { dataType: 16, dims: [2], int32Data: [0x3f80, 0xbf80] },
      [0x80, 0x3f, 0x80, 0xbf],
    ],
    'int32_data of int8': [{ dataType: 3, dims: [2], int32Data: [-1, 5] }, [0xff, 5]],
    'int32_data of packed int4': [{ dataType: 22, dims: [3], int32Data: [0x21, 0x03] }, [0x21, 0x03]],
    raw_data: [{ dataType: 2, dims: [2], rawData: Uint8Array.of(7, 8) }, [7, 8]],
    'nothing, for no elements': [{ dataType: 1, dims: [0] }, []],
  };
  for (const [name, [tensor, bytes]] of Object.entries(typed)) {
    it(`reads ${name}`, () => {
      const data = parse({ initializer: [{ name: 'w', ...tensor }] }).initializers.get('w')?.data;
      expect(data).toEqual({ kind: 'inline', bytes: Uint8Array.from(bytes) });
    });
  }

  const w = { name: 'w', dataType: 1, dims: [2], floatData: [1, 2] };
  const attribute = (value: onnx.IAttributeProto): onnx.IGraphProto => ({
    node: [{ ...IDENTITY, attribute: [{ name: 'a', ...value }] }],
  });
  const input = (type: onnx.ITypeProto | null): onnx.IGraphProto => ({ input: [{ name: 'x', type }] });
  const refused: Record<string, [() => unknown, FdqError['code'], RegExp]> = {
    'a model without a graph': [
      () => parseModel(encode(GRAPH, { graph: null }), { dir: '/' }),
      'invalid_checkpoint',
      /no graph/,
    ],
    'bytes that are not protobuf': [
      () => parseModel(Uint8Array.of(0xff, 0xff), { dir: '/' }),
      'invalid_checkpoint',
      /damaged/,
    ],
    'an IR version of the future': [() => parse({}, { irVersion: 99 }), 'unsupported_model', /99/],
    'an IR version of the past': [() => parse({}, { irVersion: 2 }), 'unsupported_model', /has 2/],
    'training information': [() => parse({}, { trainingInfo: [{}] }), 'unsupported_model', /training/],
    functions: [() => parse({}, { functions: [{ name: 'f' }] }), 'unsupported_model', /functions/],
    'sparse initializers': [() => parse({ sparseInitializer: [{}] }), 'unsupported_model', /sparse/],
    'a sparse constant': [
      () =>
        parse({
          node: [
            {
              opType: 'Constant',
              output: ['c'],
              attribute: [{ name: 'sparse_value', type: 11, sparseTensor: {} }],
            },
          ],
        }),
      'unsupported_model',
      /sparse/,
    ],
    'bodies nested without end': [
      () => parse(attribute({ type: 5, g: nest(20) })),
      'unsupported_model',
      /nests bodies deeper than 16/,
    ],
    'a body that reads what nothing defines': [
      () => parse(attribute({ type: 5, g: { node: [{ ...IDENTITY, input: ['later'] }] } })),
      'invalid_checkpoint',
      /"later".*in a body of node/,
    ],
    'a body with an input that is no tensor': [
      () => parse(attribute({ type: 5, g: { ...GRAPH, input: [{ name: 's', type: { mapType: {} } }] } })),
      'unsupported_model',
      /"s" is not a dense tensor/,
    ],
    'an attribute that is a tensor in a file': [
      () =>
        parse(
          attribute({
            type: 4,
            t: { dataType: 1, dims: [1], dataLocation: 1, externalData: [{ key: 'location', value: 'w' }] },
          }),
        ),
      'unsupported_model',
      /a file of its own/,
    ],
    'an attribute without a type': [() => parse(attribute({})), 'unsupported_model', /type 0/],
    "a function's attribute": [
      () => parse(attribute({ type: 2, refAttrName: 'b' })),
      'unsupported_model',
      /refers to a function/,
    ],
    'an integer past 2^53': [
      () => parse({ ...attribute({ type: 2, i: 2 ** 60 }) }),
      'invalid_checkpoint',
      /at most 2\^53 - 1 but it is 1152921504606846976/,
    ],
    'text that is not UTF-8': [
      () => parse(attribute({ type: 3, s: Uint8Array.of(0xff) })),
      'invalid_checkpoint',
      /UTF-8/,
    ],
    'an attribute given twice': [
      () =>
        parse({
          node: [
            {
              ...IDENTITY,
              attribute: [
                { name: 'a', type: 2 },
                { name: 'a', type: 2 },
              ],
            },
          ],
        }),
      'invalid_checkpoint',
      /"a" twice/,
    ],
    'an initializer without a name': [
      () => parse({ initializer: [{ ...w, name: '' }] }),
      'invalid_checkpoint',
      /no name/,
    ],
    'an initializer given twice': [() => parse({ initializer: [w, w] }), 'invalid_checkpoint', /used twice/],
    'an element type fdq does not handle': [
      () => parse({ initializer: [{ ...w, dataType: 8 }] }),
      'unsupported_model',
      /type 8/,
    ],
    'a negative size': [
      () => parse({ initializer: [{ ...w, dims: [-2] }] }),
      'invalid_checkpoint',
      /impossible shape \[-2\]/,
    ],
    'too few elements': [
      () => parse({ initializer: [{ ...w, dims: [3] }] }),
      'invalid_checkpoint',
      /needs 12 bytes but has 8/,
    ],
    segments: [() => parse({ initializer: [{ ...w, segment: {} }] }), 'unsupported_model', /segments/],
    'external data that is not marked': [
      () => parse({ initializer: [{ ...w, externalData: [{ key: 'location', value: 'w.bin' }] }] }),
      'invalid_checkpoint',
      /not marked/,
    ],
    'an input that is no tensor': [
      () => parse(input(null)),
      'unsupported_model',
      /Input "x" is not a dense tensor/,
    ],
    'an input without a shape': [
      () => parse(input({ tensorType: { elemType: 1 } })),
      'unsupported_model',
      /no declared number/,
    ],
    'a negative dimension': [
      () => parse(input({ tensorType: { elemType: 1, shape: { dim: [{ dimValue: -1 }] } } })),
      'invalid_checkpoint',
      /negative dimension -1/,
    ],
    'a graph out of order': [
      () => parse({ node: [{ ...IDENTITY, input: ['later'] }] }),
      'invalid_checkpoint',
      /"later"/,
    ],
  };
  for (const [name, [act, code, message]] of Object.entries(refused)) {
    it(`refuses ${name}`, () => {
      const error = errorOf(act);
      expect(error.code).toBe(code);
      expect(error.message).toMatch(message);
      expect(error.suggestions.length).toBeGreaterThan(0);
    });
  }
});
