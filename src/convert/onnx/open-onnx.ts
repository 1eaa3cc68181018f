import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { elementTypeOf } from '../../graph/data-types.js';
import type { DataType } from '../../graph/ir.js';
import type { DecoderInfo } from '../../models/architecture.js';
import type { NativeTensor } from '../../runtime/addon.js';
import type { Runtime } from '../../runtime/load-addon.js';

/** A written model, running. */
export interface OnnxDecoder {
  /** Logits of one sequence at every position, [tokens, vocab], from an empty cache. */
  logits(ids: readonly number[]): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Runs `model.onnx` of a folder that `--format onnx` wrote. */
export async function openOnnx(
  dir: string,
  decoder: DecoderInfo,
  { runtime, threads }: { readonly runtime: Runtime; readonly threads: number },
): Promise<OnnxDecoder> {
  const { addon } = runtime;
  const session = await addon.createSession({
    model: await readFile(path.join(dir, 'model.onnx')),
    // ONNX Runtime reads the data itself, from the folder the model names it in.
    initializers: [],
    placeholderFolder: dir,
    threads,
    spinning: false,
    isa: addon.detectIsa(),
  });
  return {
    async logits(ids) {
      const tokens = ids.length;
      const ints = BigInt64Array.from(ids, BigInt);
      const ones = new BigInt64Array(tokens).fill(1n);
      const output = floats('logits', [1, tokens, decoder.vocabSize]);
      await session.run(
        [
          tensor('input_ids', 'int64', [1, tokens], ints),
          tensor('attention_mask', 'int64', [1, tokens], ones),
          ...cache(decoder, 'past_key_values', 0),
        ],
        [output, ...cache(decoder, 'present', tokens)],
      );
      return output.data as Float32Array;
    },
    close: () => session.close(),
  };
}

/** Keys and values of every layer, `tokens` positions each. */
function cache({ numLayers, numKvHeads, headDim }: DecoderInfo, name: string, tokens: number) {
  return Array.from({ length: numLayers }, (_, layer) =>
    ['key', 'value'].map((part) => floats(`${name}.${layer}.${part}`, [1, numKvHeads, tokens, headDim])),
  ).flat();
}

function floats(name: string, shape: readonly number[]): NativeTensor {
  const count = shape.reduce((product, size) => product * size, 1);
  return tensor(name, 'float32', shape, new Float32Array(count));
}

function tensor(
  name: string,
  dataType: DataType,
  shape: readonly number[],
  data: ArrayBufferView,
): NativeTensor {
  return { name, elementType: elementTypeOf(dataType), shape, data };
}
