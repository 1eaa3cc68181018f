import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { Graph, WeightSource } from '../../../../src/graph/ir.js';
import { cacheKey } from '../../../../src/load/cache/cache-key.js';
import { resolveScheme } from '../../../../src/quant/registry.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const SHAPE = [16, 64] as const;

function sourceOf(name: string): WeightSource {
  const byteLength = SHAPE[0] * SHAPE[1] * 2;
  return { name, dataType: 'bfloat16', shape: SHAPE, file: '/model.safetensors', offset: 0, byteLength };
}

function graphOf(scheme: string, fused: readonly string[]): Graph {
  const members = [sourceOf('q')];
  const { initializers } = resolveScheme(scheme).emit({
    node: 'n',
    x: 'x',
    bias: '',
    output: 'y',
    weight: { name: 'w', dataType: 'bfloat16', shape: SHAPE, data: { kind: 'weight', members } },
    members,
    fused: fused.map(sourceOf),
    compute: 'float32',
  });
  const rest = {
    opsets: new Map(),
    inputs: [],
    outputs: [],
    nodes: [],
    values: new Map(),
    metadata: new Map(),
  };
  return { name: '', ...rest, initializers: new Map(initializers.map((each) => [each.name, each])) };
}

it('is another one where a matrix shares its scale with others', async () => {
  const file = path.join(await createTempDir(), 'weights');
  writeFileSync(file, 'weights');
  const checkpoint = { files: [{ path: file, size: 7, mtimeMs: 0, ino: 0 }] };
  const keyOf = (scheme: string, ...fused: string[]): Promise<string> =>
    cacheKey(checkpoint, graphOf(scheme, fused));
  const keys = await Promise.all([
    keyOf('nvfp4', 'q'),
    keyOf('nvfp4', 'q', 'k'),
    keyOf('nvfp4', 'q', 'k', 'v'),
  ]);
  expect(new Set(keys).size).toBe(3);
  expect(await keyOf('nvfp4', 'q', 'k')).toBe(keys[1]);
  expect(await keyOf('wint8', 'q', 'k')).toBe(await keyOf('wint8', 'q'));
});
