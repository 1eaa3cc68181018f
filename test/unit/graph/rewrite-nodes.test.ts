import { describe, expect, it } from 'vitest';

import { BugError } from '../../../src/errors.js';
import type { Graph, GraphNode, Initializer } from '../../../src/graph/ir.js';
import { dropUnused, findConsumers, replaceNodes } from '../../../src/graph/rewrite-nodes.js';
import { sampleGraph } from './sample-graph.js';

const GEMM = '/model/layers.3/Gemm';

function findNode(graph: Graph, name: string): GraphNode {
  return graph.nodes.find((node) => node.name === name) as GraphNode;
}

function codes(name: string): Initializer {
  return { name, dataType: 'int8', shape: [5, 2], data: { kind: 'inline', bytes: new Uint8Array(10) } };
}

describe('replaceNodes', () => {
  it('puts new nodes in the old place and drops what only the old one read', () => {
    const graph = sampleGraph();
    const old = findNode(graph, GEMM);
    const half: GraphNode = {
      ...old,
      name: `${GEMM}/a`,
      opType: 'Quant',
      domain: 'q',
      inputs: [old.inputs[0] ?? '', 'codes'],
      outputs: ['mid'],
    };
    const rest: GraphNode = { ...old, name: `${GEMM}/b`, inputs: ['mid'] };
    const mid = { name: 'mid', dataType: 'float32', shape: ['tokens', 5] } as const;
    const rewritten = replaceNodes(
      graph,
      new Map([[GEMM, { nodes: [half, rest], initializers: [codes('codes')], values: [mid] }]]),
      {
        opsets: new Map([
          ['q', 2],
          ['', 5],
        ]),
        metadata: new Map([['fdq.scheme', 'wint8']]),
      },
    );
    expect(rewritten.nodes.map((node) => node.name)).toEqual(['/model/layers.3/Scale', half.name, rest.name]);
    expect([...rewritten.initializers.keys()]).toEqual(['/model/layers.3/factors', 'codes']);
    expect(rewritten.values.get('mid')).toEqual(mid);
    expect(rewritten.opsets).toEqual(
      new Map([
        ['q', 2],
        ['', 21],
        ['fdq', 1],
      ]),
    );
    expect(rewritten.metadata.get('fdq.scheme')).toBe('wint8');
    expect(graph).toEqual(sampleGraph());
  });

  it('lets a new initializer take the name of one that only the replaced node read', () => {
    const graph = sampleGraph();
    const rewritten = replaceNodes(
      graph,
      new Map([[GEMM, { nodes: [findNode(graph, GEMM)], initializers: [codes('w')] }]]),
    );
    expect(rewritten.initializers.get('w')?.dataType).toBe('int8');
  });

  it('refuses to change an initializer that another node reads', () => {
    const graph = sampleGraph();
    const replacement = { nodes: [findNode(graph, GEMM)], initializers: [codes('/model/layers.3/factors')] };
    expect(() => replaceNodes(graph, new Map([[GEMM, replacement]]))).toThrow(/other nodes still read it/);
  });

  it('refuses an unknown node and a result that is not valid', () => {
    expect(() => replaceNodes(sampleGraph(), new Map([['nobody', { nodes: [] }]]))).toThrow(/"nobody"/);
    expect(() => replaceNodes(sampleGraph(), new Map([[GEMM, { nodes: [] }]]))).toThrow(BugError);
    expect(() => replaceNodes(sampleGraph(), new Map([[GEMM, { nodes: [] }]]))).toThrow(
      /Output "y" is not defined/,
    );
  });
});

describe('dropUnused', () => {
  it('keeps an initializer that is only a graph output', () => {
    const graph = sampleGraph();
    const w = { name: 'w', dataType: 'bfloat16', shape: [5, 2] } as const;
    const pruned = dropUnused({ ...graph, nodes: [], outputs: [w] });
    expect([...pruned.initializers.keys()]).toEqual(['w']);
    expect(pruned.values.size).toBe(0);
  });
});

describe('findConsumers', () => {
  it('lists each reading node once, in order', () => {
    const graph = sampleGraph();
    const twice: GraphNode = { ...findNode(graph, GEMM), name: 'twice', inputs: ['x', 'x', ''], outputs: [] };
    const consumers = findConsumers({ ...graph, nodes: [...graph.nodes, twice] });
    expect(consumers.get('x')?.map((node) => node.name)).toEqual(['/model/layers.3/Scale', 'twice']);
    expect(consumers.has('')).toBe(false);
    expect(consumers.get('w')?.map((node) => node.name)).toEqual([GEMM]);
  });
});
