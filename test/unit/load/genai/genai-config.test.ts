import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { isGenaiFolder, parseGenaiConfig } from '../../../../src/load/genai/genai-config.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

const decoder = { hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4, head_size: 16 };
const model = { type: 'llama', vocab_size: 100, context_length: 512, eos_token_id: 3, decoder };

function withDecoder(changes: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return { model: { ...model, decoder: { ...decoder, ...changes } } };
}

describe('genai_config.json', () => {
  it('gives sizes, names and ends of text, with the defaults of onnxruntime-genai', () => {
    expect(parseGenaiConfig({ model })).toMatchObject({
      filename: 'model.onnx',
      numHeads: 4,
      numKvHeads: 4,
      inputIds: 'input_ids',
      attentionMask: 'attention_mask',
      positionIds: 'position_ids',
      logits: 'logits',
      eosTokenIds: [3],
      slidingWindow: undefined,
      generation: {},
    });
  });

  it('gives defaults of sampling only where it samples', () => {
    const search = { temperature: 0.5, top_k: 9, repetition_penalty: 1.1, max_length: 10 };
    const read = (do_sample: boolean): unknown =>
      parseGenaiConfig({ model, search: { ...search, do_sample } }).generation;
    expect(read(true)).toEqual({ temperature: 0.5, top_k: 9, repetition_penalty: 1.1 });
    expect(read(false)).toEqual({ repetition_penalty: 1.1 });
  });

  it.each([
    [withDecoder({ pipeline: [] }), 'cuts it into a pipeline'],
    [{ model: { ...model, vision: {} } }, 'gives it a part "vision"'],
    [withDecoder({ filename: '../model.onnx' }), 'model.decoder.filename is the string'],
    [withDecoder({ head_size: undefined }), 'model.decoder.head_size is missing, not a positive integer'],
    [withDecoder({ num_hidden_layers: 1.5 }), 'model.decoder.num_hidden_layers is the number 1.5'],
    [{ model: { ...model, decoder: [] } }, 'model.decoder is a list of 0, not an object'],
    [{}, 'model is missing, not an object'],
  ])('%#: is refused naming the key', (json, says) => {
    expect(() => parseGenaiConfig(json)).toThrow(says);
  });

  it('makes a folder one of onnxruntime-genai unless it has safetensors', async () => {
    const dir = await createTempDir();
    expect(await isGenaiFolder(dir)).toBe(false);
    await writeFile(path.join(dir, 'genai_config.json'), '{}');
    expect(await isGenaiFolder(dir)).toBe(true);
    await writeFile(path.join(dir, 'model.safetensors'), '');
    expect(await isGenaiFolder(dir)).toBe(false);
  });
});
