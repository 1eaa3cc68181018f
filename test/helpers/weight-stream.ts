import { readdirSync, readlinkSync } from 'node:fs';
import type { Graph, Initializer } from '../../src/graph/ir.js';

/** A graph without nodes, of which only the weights matter. */
export function graphOfWeights(initializers: readonly Initializer[]): Graph {
  return {
    name: 'test',
    opsets: new Map(),
    inputs: [],
    outputs: [],
    nodes: [],
    initializers: new Map(initializers.map((initializer) => [initializer.name, initializer])),
    values: new Map(),
    metadata: new Map(),
  };
}

/** Files in a folder that this process has open. */
export function listOpenFiles(folder: string): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      return target.startsWith(folder) ? [target] : [];
    } catch {
      return []; // the descriptor of the listing itself
    }
  });
}
