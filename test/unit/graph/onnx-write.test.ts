import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';

import onnxProto from 'onnx-proto';
import { describe, expect, it } from 'vitest';

import type { Graph, Initializer, InitializerData } from '../../../src/graph/ir.js';
import { parseModel, serializeModel } from '../../../src/graph/onnx.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { inlineOnly, sampleGraph, weightSource } from './sample-graph.js';

const { ModelProto } = onnxProto.onnx;

function readEntries(graph: Graph, name: string, dir?: string): Record<string, string> {
  const model = ModelProto.decode(serializeModel(graph, dir === undefined ? {} : { dir }));
  const tensor = model.graph?.initializer?.find((candidate) => candidate.name === name);
  expect(tensor?.dataLocation).toBe(1);
  expect(tensor?.rawData).toHaveLength(0);
  return Object.fromEntries((tensor?.externalData ?? []).map(({ key, value }) => [key ?? '', value ?? '']));
}

function withData(shape: readonly number[], dataType: Initializer['dataType'], data: InitializerData): Graph {
  const graph = inlineOnly(sampleGraph());
  return {
    ...graph,
    initializers: new Map([...graph.initializers, ['w', { name: 'w', dataType, shape, data }]]),
  };
}

describe('serializeModel', () => {
  it('says which versions it was written for', () => {
    const model = ModelProto.decode(serializeModel(sampleGraph()));
    expect(Number(model.irVersion)).toBe(10);
    expect(model.opsetImport.map(({ domain, version }) => [domain, Number(version)])).toEqual([
      ['', 21],
      ['fdq', 1],
    ]);
  });

  it('writes lazy initializers as external data of their full size', () => {
    const expected = { location: 'fdq-weights', offset: '0' };
    expect(readEntries(sampleGraph(), 'w')).toEqual({ ...expected, length: '20' });
    const layer = { node: 'n', scheme: 'wint4', members: [weightSource('a', [3, 3])] };
    const quantized = withData([3, 3], 'int4', { kind: 'quantized', layer, part: 'weight' });
    expect(readEntries(quantized, 'w')).toEqual({ ...expected, length: '5' });
  });

  it('names real files relative to the folder of the model', () => {
    const at = (file: string): Graph =>
      withData([4], 'uint8', { kind: 'external', file, offset: 8, byteLength: 4 });
    const entries = { offset: '8', length: '4' };
    expect(readEntries(at('/m/sub/w.bin'), 'w', '/m')).toEqual({ ...entries, location: 'sub/w.bin' });
    expect(readEntries(at('/m/sub/w.bin'), 'w')).toEqual({ ...entries, location: 'm/sub/w.bin' });
    expect(readEntries(at('w.bin'), 'w')).toEqual({ ...entries, location: 'w.bin' });
    expect(() => serializeModel(at('/other/w.bin'), { dir: '/m' })).toThrow(/does not lie under/);
    expect(() => serializeModel(at('/m'), { dir: '/m' })).toThrow(/does not lie under/);
  });
});

describe('round trip', () => {
  it('keeps everything of a graph with inline initializers', () => {
    const graph = inlineOnly(sampleGraph());
    expect(parseModel(serializeModel(graph), { dir: '/' })).toEqual(graph);
  });

  it('keeps unknown, named and zero dimensions apart', () => {
    const graph = inlineOnly(sampleGraph());
    const inputs = [...graph.inputs, { name: 'z', dataType: 'int64', shape: ['', 'n', 0] } as const];
    expect(parseModel(serializeModel({ ...graph, inputs }), { dir: '/' }).inputs).toEqual(inputs);
  });

  it('keeps external data, whose bytes must be there', async () => {
    const dir = await createTempDir();
    await mkdir(path.join(dir, 'sub'));
    const file = path.join(dir, 'sub', 'w.bin');
    await writeFile(file, new Uint8Array(12));
    const graph = withData([4], 'uint8', { kind: 'external', file, offset: 8, byteLength: 4 });
    const bytes = serializeModel(graph, { dir });
    expect(parseModel(bytes, { dir })).toEqual(graph);
    await writeFile(file, new Uint8Array(11));
    expect(() => parseModel(bytes, { dir })).toThrow(/lies at bytes 8 to 12 of ".*", which has 11/);
  });
});
