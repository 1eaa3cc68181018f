import { describe, expect, it } from 'vitest';
import { findUnequalScales } from '../../../../src/convert/safetensors/fused-scales.js';
import type { Graph, QuantizedLayer, StoredWeight, WeightSource } from '../../../../src/graph/ir.js';

const MLP = 'model.layers.0.mlp';
const ATTENTION = 'model.layers.3.self_attn';

function source(name: string, storedScale?: number): WeightSource {
  const floats = { name: `${name}.weight`, dataType: 'bfloat16', shape: [4, 16] } as const;
  const part = { name, file: '/w', offset: 0, byteLength: 1 };
  const stored: StoredWeight = {
    method: 'compressed-tensors',
    scheme: 'nvfp4',
    format: { native: { format: 'e2m1', groupN: 0, groupK: 0 }, activation: 'none' },
    parts: {
      codes: { ...part, layout: 'rows', rowBytes: 8, offsetBinary: false },
      scales: { ...part, layout: 'tensor', type: 'float32', reciprocal: true, value: storedScale ?? NaN },
    },
  };
  const place = { ...floats, file: '/w', offset: 0, byteLength: 1 };
  return storedScale === undefined ? place : { ...place, stored };
}

function graphOf(...layers: readonly Omit<QuantizedLayer, 'node'>[]): Graph {
  const initializers = layers.flatMap((layer, index) => {
    const quantized = { ...layer, node: `n${index}` };
    return (['weight', 'scales'] as const).map((part) => {
      const data = { kind: 'quantized', layer: quantized, part } as const;
      return { name: `${index}.${part}`, dataType: 'float32', shape: [1], data } as const;
    });
  });
  const graph = { name: '', opsets: new Map(), inputs: [], outputs: [], nodes: [], values: new Map() };
  return {
    ...graph,
    metadata: new Map(),
    initializers: new Map(initializers.map((each) => [each.name, each])),
  };
}

describe('tensor scales that differ where vLLM fuses', () => {
  const [gate, up, down] = ['gate', 'up', 'down'].map((part) => source(`${MLP}.${part}_proj`)) as [
    WeightSource,
    WeightSource,
    WeightSource,
  ];
  const scheme = 'nvfp4';

  it('are none of what shares one, nor of what is not fused', () => {
    const scaleGroup = [gate, up];
    const graph = graphOf(
      { scheme, members: [gate, up], scaleGroup },
      { scheme, members: [down] },
      { scheme, members: [source('lm_head')] },
    );
    expect(findUnequalScales(graph, scheme)).toEqual([]);
    // Parts of a fused layer, with something else between them.
    const apart = graphOf({ scheme, members: [gate], scaleGroup }, { scheme, members: [up], scaleGroup });
    expect(findUnequalScales(apart, scheme)).toEqual([]);
  });

  it('are those of matrices in several types, which the model multiplies apart', () => {
    const graph = graphOf({ scheme, members: [gate] }, { scheme, members: [up] });
    expect(findUnequalScales(graph, scheme)).toEqual([MLP]);
    expect(findUnequalScales(graph, 'wint8')).toEqual([]);
  });

  it('are those that a checkpoint stores, unless they are equal', () => {
    const attention = (...scales: readonly (number | undefined)[]): Omit<QuantizedLayer, 'node'> => ({
      scheme,
      members: ['q', 'k', 'v'].map((part, index) => source(`${ATTENTION}.${part}_proj`, scales[index])),
    });
    expect(findUnequalScales(graphOf(attention(3, 3, 3)), scheme)).toEqual([]);
    expect(findUnequalScales(graphOf(attention(3, 3, 4)), scheme)).toEqual([ATTENTION]);
    // Beside one that is quantized now.
    expect(findUnequalScales(graphOf(attention(3, undefined, 3)), scheme)).toEqual([ATTENTION]);
  });
});
