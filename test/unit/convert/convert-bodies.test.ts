import path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Graph, GraphNode, Initializer, Subgraph } from '../../../src/graph/ir.js';
import { listScopes } from '../../../src/graph/scopes.js';
import {
  createConvertedFile,
  graphOf,
  H,
  inline,
  K,
  matrix,
  multiply,
  node,
  readOutput,
  TOLERANCE,
  transB,
  type ConvertedFile,
} from '../../helpers/convert-graph.js';
import { distance, fillValues, runOnnx } from '../../helpers/onnx-model.js';

let source: ConvertedFile;
beforeEach(async () => {
  source = await createConvertedFile();
});

function body(name: string, nodes: readonly GraphNode[], initializers: readonly Initializer[]): Subgraph {
  return {
    name,
    inputs: [],
    outputs: [{ name: nodes.at(-1)!.outputs[0]!, dataType: 'float32' }],
    nodes,
    initializers: new Map(initializers.map((each) => [each.name, each])),
    values: new Map(),
  };
}

/**
 * x [t, K] and a condition: y = x outer^T where it holds, else (x w^T) outer^T... with `w` of the branch itself; the
 * graph around them has a `w` too, which z = x w^T reads.
 */
function branches(scheme?: string): Graph {
  const outer = inline('outer', [H, K], matrix(H, K, 1, scheme));
  const w = inline('w', [H, K], matrix(H, K, 2, scheme));
  const own = inline('w', [K, K], matrix(K, K, 3, scheme));
  const yes = body('yes', [node('Gemm', ['x', 'outer'], 'a', transB)], []);
  const no = body(
    'no',
    [node('Gemm', ['x', 'w'], 'b', transB), node('Gemm', ['b', 'outer'], 'c', transB)],
    [own],
  );
  const floats = (name: string) => ({ name, dataType: 'float32' as const, shape: ['t', H] });
  return graphOf(
    {
      inputs: [
        { name: 'x', dataType: 'float32', shape: ['t', K] },
        { name: 'holds', dataType: 'bool', shape: [] },
      ],
      outputs: [floats('y'), floats('z')],
      nodes: [
        node('If', ['holds'], 'y', {
          then_branch: { type: 'graph', value: yes },
          else_branch: { type: 'graph', value: no },
        }),
        node('Gemm', ['x', 'w'], 'z', transB),
      ],
    },
    [outer, w],
  );
}

async function runBranches(model: string, holds: boolean): Promise<Float32Array> {
  const y = new Float32Array(3 * H);
  const z = new Float32Array(3 * H);
  await runOnnx(
    model,
    [
      { name: 'x', dataType: 'float32', shape: [3, K], data: fillValues(3 * K, 9) },
      { name: 'holds', dataType: 'bool', shape: [], data: Uint8Array.of(Number(holds)) },
    ],
    [
      { name: 'y', dataType: 'float32', shape: [3, H], data: y },
      { name: 'z', dataType: 'float32', shape: [3, H], data: z },
    ],
  );
  return Float32Array.of(...y, ...z);
}

describe('bodies of If, Loop and Scan', () => {
  it.each(['wint8', 'wint4:g32'])('holds %s weights of the right graph, each once', async (scheme) => {
    source.write(branches());
    const { output } = await source.convert(scheme);
    const model = readOutput(output);
    const products = listScopes(model).flatMap(({ graph }) =>
      graph.nodes.filter(({ opType }) => opType === 'MatMulNBits').map(({ inputs }) => inputs[1]),
    );
    expect(products.sort()).toEqual(
      ['outer.quantized', 'outer.quantized', 'w.quantized', 'w.quantized_1'].sort(),
    );
    const codes = [...model.initializers.values()].filter(({ dataType }) => dataType === 'uint8');
    expect(codes).toHaveLength(3);
    for (const { graph } of listScopes(model).slice(1)) expect(graph.initializers.size).toBe(0);
    const x = fillValues(3 * K, 9);
    const [outer, w, own] = [matrix(H, K, 1, scheme), matrix(H, K, 2, scheme), matrix(K, K, 3, scheme)];
    const z = multiply(x, w, K);
    const written = path.join(output, 'model.onnx');
    const then = Float32Array.of(...multiply(x, outer, K), ...z);
    expect(distance(await runBranches(written, true), then)).toBeLessThan(TOLERANCE);
    const otherwise = Float32Array.of(...multiply(multiply(x, own, K), outer, K), ...z);
    expect(distance(await runBranches(written, false), otherwise)).toBeLessThan(TOLERANCE);
  });

  it('runs schemes that round inputs in a body', async () => {
    source.write(branches());
    const { output } = await source.convert('w8a8');
    const x = fillValues(3 * K, 9);
    const expected = Float32Array.of(...multiply(x, matrix(H, K, 1), K), ...multiply(x, matrix(H, K, 2), K));
    const found = await runBranches(path.join(output, 'model.onnx'), true);
    expect(distance(found, expected)).toBeLessThan(2 / 127);
  });

  it('multiplies in a Loop with a matrix turned outside of it', async () => {
    const next = body('next', [node('MatMul', ['h', 'turned'], 'm'), node('Tanh', ['m'], 'out')], []);
    const loop: Subgraph = {
      ...next,
      inputs: [
        { name: 'i', dataType: 'int64', shape: [] },
        { name: 'go', dataType: 'bool', shape: [] },
        { name: 'h', dataType: 'float32' },
      ],
      outputs: [{ name: 'still', dataType: 'bool', shape: [] }, ...next.outputs],
      nodes: [...next.nodes, node('Identity', ['go'], 'still')],
    };
    const weight = inline('w', [K, K], matrix(K, K, 4));
    const floats = { dataType: 'float32' as const, shape: ['t', K] };
    source.write({
      ...branches(),
      inputs: [
        { name: 'x', ...floats },
        { name: 'times', dataType: 'int64', shape: [] },
      ],
      outputs: [{ name: 'y', ...floats }],
      nodes: [
        node('Transpose', ['w'], 'turned'),
        node('Loop', ['times', '', 'x'], 'y', { body: { type: 'graph', value: loop } }),
      ],
      initializers: new Map([['w', weight]]),
    });
    const { output } = await source.convert('wint8');
    const found = new Float32Array(3 * K);
    const x = fillValues(3 * K, 9);
    await runOnnx(
      path.join(output, 'model.onnx'),
      [
        { name: 'x', dataType: 'float32', shape: [3, K], data: x },
        { name: 'times', dataType: 'int64', shape: [], data: BigInt64Array.of(2n) },
      ],
      [{ name: 'y', dataType: 'float32', shape: [3, K], data: found }],
    );
    const step = (h: Float32Array) => multiply(h, matrix(K, K, 4, 'wint8'), K).map(Math.tanh);
    expect(distance(found, step(step(x)))).toBeLessThan(TOLERANCE);
    expect(readOutput(output).nodes.map(({ opType }) => opType)).toEqual(['Loop']);
  });
});
