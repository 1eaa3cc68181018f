import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Graph, WeightSource } from '../../src/graph/ir.js';
import { streamWeights } from '../../src/load/stream-weights.js';
import { packPanels } from '../../src/quant/packed-layout.js';
import type { QuantizedParts } from '../../src/quant/scheme.js';
import { openAddon } from '../helpers/addon.js';
import { findPartDifference, makeMatrix } from '../helpers/native-weights.js';
import { noise, quantize, QUANTIZING, type QuantizingScheme } from '../helpers/scheme-cases.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { graphOfWeights } from '../helpers/weight-stream.js';

const K = 150;
const ROWS = [17, 130, 1];

/** Matrices of different magnitudes, so that nothing of one fits another. */
const MATRICES = ROWS.map((rows, index) => makeMatrix([rows, K], (at) => noise(at + index) * 10 ** index));

const LARGEST = MATRICES.flatMap(({ values }) => [...values]).reduce(
  (largest, value) => Math.max(largest, Math.abs(value)),
  0,
);

function writeMembers(file: string): readonly WeightSource[] {
  writeFileSync(file, Buffer.concat(MATRICES.map(({ bytes }) => bytes)));
  let offset = 0;
  return MATRICES.map(({ tensor, bytes }, index) => {
    const source = { ...tensor, name: `m${index}`, file, offset, byteLength: bytes.length };
    offset += bytes.length;
    return source;
  });
}

/** A graph of one fused layer without nodes. */
function graphOf(scheme: QuantizingScheme, members: readonly WeightSource[]): Graph {
  const shape = [ROWS.reduce((sum, rows) => sum + rows, 0), K];
  const { initializers } = scheme.emit({
    node: 'layer',
    x: 'x',
    bias: '',
    output: 'y',
    weight: { name: 'W', dataType: 'bfloat16', shape, data: { kind: 'weight', members } },
    members,
    fused: members,
    compute: 'float32',
  });
  return graphOfWeights(initializers);
}

function concat(parts: readonly QuantizedParts[]): QuantizedParts {
  return {
    codes: Uint8Array.from(parts.flatMap(({ codes }) => [...codes])),
    scales: Float32Array.from(parts.flatMap(({ scales }) => [...scales])),
    blockScales: Uint8Array.from(parts.flatMap(({ blockScales }) => [...(blockScales ?? [])])),
  };
}

describe('a fused layer read from a file', () => {
  it.each(QUANTIZING.map((scheme) => [scheme.name, scheme] as const))(
    'has the parts of its members by %s, one after the other',
    async (_, scheme) => {
      const members = writeMembers(path.join(await createTempDir(), 'weights.bin'));
      const initializers = await streamWeights(graphOf(scheme, members), {
        addon: openAddon().addon,
        threads: 2,
        open: (file) => open(file),
        onProgress: () => undefined,
      });
      const memoryOf = (name: string): ArrayBuffer =>
        initializers.find((initializer) => initializer.name === name)?.memory ?? new ArrayBuffer();
      const { native } = scheme;
      // Where the scheme wants it, all have the scale of the largest, which is in the last.
      const tensorScale = scheme.findTensorScale?.(LARGEST);
      const expected = MATRICES.map((matrix, index) =>
        packPanels({ n: ROWS[index] as number, k: K, native }, quantize(scheme, matrix, tensorScale)),
      );
      const found = {
        codes: new Uint8Array(memoryOf('W')),
        scales: new Float32Array(memoryOf('W.scales')),
        blockScales: new Uint8Array(memoryOf('W.block_scales')),
      };
      expect(findPartDifference(found, concat(expected))).toBeUndefined();
    },
  );
});
