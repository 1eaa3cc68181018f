import { describe, expect, it } from 'vitest';
import { GraphBuilder } from '../../src/graph/builder.js';
import { serializeModel } from '../../src/graph/onnx.js';
import type { KvDataType } from '../../src/runtime/addon.js';
import { KV_BLOCK_SIZE, kvBytesPerToken } from '../../src/runtime/kv-layout.js';
import { createSession, openAddon } from '../helpers/addon.js';

const runtime = openAddon();

/** y = -x */
function negationModel(): Uint8Array {
  const builder = GraphBuilder.create('test', new Map([['', 21]]));
  const x = builder.input('x', 'float32', ['n']);
  const output = { name: 'y', dataType: 'float32', shape: ['n'] } as const;
  builder.output(builder.value({ opType: 'Neg', inputs: [x], output }));
  return serializeModel(builder.build());
}

describe('the KV pool', () => {
  it.each<readonly [KvDataType, number]>([
    ['float32', 2 * 3 * 2 * 20 * 4],
    ['bfloat16', 2 * 3 * 2 * 20 * 2],
    ['int8', 2 * 3 * 2 * (32 + 4)],
    ['fp8', 2 * 3 * 2 * (32 + 4)],
    ['int4', 2 * 3 * 2 * (16 + 4)],
  ])('of %s takes the bytes that are planned for it, to the byte', async (dataType, perToken) => {
    const shape = { numLayers: 2, numKvHeads: 3, headDim: 20 };
    expect(kvBytesPerToken(shape, dataType)).toBe(perToken);
    for (const headDim of [1, 16, 20, 64, 80, 128, 129]) {
      const numBlocks = 5;
      const bytes = kvBytesPerToken({ ...shape, headDim }, dataType) * KV_BLOCK_SIZE * numBlocks;
      const kvCache = { ...shape, headDim, dataType, numBlocks, byteLength: bytes };
      const model = negationModel();
      const session = await createSession(runtime, { model, kvCache });
      await session.close();
      await expect(
        createSession(runtime, { model, kvCache: { ...kvCache, byteLength: bytes + 1 } }),
      ).rejects.toThrow(`the KV cache takes ${bytes} bytes, not ${bytes + 1}`);
    }
  });

  it('is refused in a type it has not', () => {
    const kvCache = { dataType: 'fp6' as KvDataType, numLayers: 1, numBlocks: 1, numKvHeads: 1, headDim: 16 };
    expect(() => createSession(runtime, { kvCache: { ...kvCache, byteLength: 0 } })).toThrow(
      /unknown KV data type fp6/,
    );
  });
});
