import { linkSync, readFileSync, renameSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseModel, serializeModel } from '../../../../src/graph/onnx.js';
import type { Graph } from '../../../../src/graph/ir.js';
import { openFdqFolder } from '../../../../src/load/folder/open-folder.js';
import type { ModelManifest } from '../../../../src/load/folder/manifest.js';
import { findDamagedTensor } from '../../../../src/load/folder/verify-tensors.js';
import { convertFixture } from '../../../helpers/convert-fixture.js';
import { loadFolder } from '../../../helpers/fixture-model.js';
import { createTempDir } from '../../../helpers/temp-dir.js';

type Json = Record<string, unknown>;

async function convertedFolder(): Promise<string> {
  return (await convertFixture('llama_tied', await createTempDir(), 'wint4:g32')).output;
}

function readManifest(dir: string): ModelManifest {
  return JSON.parse(readFileSync(path.join(dir, 'fdq.json'), 'utf8')) as ModelManifest;
}

function editManifest(dir: string, edit: (manifest: Json) => void): void {
  const manifest = readManifest(dir) as unknown as Json;
  edit(manifest);
  writeFileSync(path.join(dir, 'fdq.json'), JSON.stringify(manifest));
}

function editGraph(dir: string, edit: (graph: Graph) => Graph): void {
  const file = path.join(dir, 'model.onnx');
  writeFileSync(file, serializeModel(edit(parseModel(readFileSync(file), { dir })), { dir }));
}

function tensorsOf(manifest: Json): { name: string; offset: number; bytes: number; shape: number[] }[] {
  return (manifest['weights'] as { tensors: never }).tensors;
}

const refusals: readonly (readonly [what: string, damage: (dir: string) => void, words: string])[] = [
  ['cut weights', (dir) => truncateSync(path.join(dir, 'weights.bin'), 4096), 'has 4096 bytes'],
  ['a missing graph', (dir) => renameSync(path.join(dir, 'model.onnx'), path.join(dir, 'x')), 'model.onnx'],
  ['no JSON', (dir) => writeFileSync(path.join(dir, 'fdq.json'), '{'), 'fdq.json'],
  [
    'a repeated key',
    (dir) => writeFileSync(path.join(dir, 'fdq.json'), '{"kind":"model","kind":"model"}'),
    'kind',
  ],
  [
    'a newer version',
    (dir) => editManifest(dir, (json) => (json['formatVersion'] = 2)),
    'another version of fdq',
  ],
  ['another layout', (dir) => editManifest(dir, (json) => (json['layoutVersion'] = 9)), 'layoutVersion 1'],
  ['a missing field', (dir) => editManifest(dir, (json) => delete json['decoder']), 'decoder'],
  [
    'a tensor listed twice',
    (dir) => editManifest(dir, (json) => tensorsOf(json).push({ ...tensorsOf(json)[0]! })),
    'listed twice',
  ],
  [
    'a tensor of another size',
    (dir) => editManifest(dir, (json) => (tensorsOf(json)[0]!.bytes += 1)),
    'not what its shape needs',
  ],
  [
    'overlapping tensors',
    (dir) => editManifest(dir, (json) => (tensorsOf(json)[1]!.offset = 0)),
    'starts at 0',
  ],
  ['a tensor renamed', (dir) => editManifest(dir, (json) => (tensorsOf(json)[0]!.name = 'x')), 'another one'],
  [
    'another cache size',
    (dir) => editManifest(dir, (json) => ((json['decoder'] as Json)['numKvHeads'] = 1)),
    'other sizes',
  ],
  [
    'another vocabulary',
    (dir) => editManifest(dir, (json) => ((json['decoder'] as Json)['vocabSize'] = 7)),
    '"logits"',
  ],
  [
    'another number of layers',
    (dir) => editManifest(dir, (json) => ((json['decoder'] as Json)['numLayers'] = 1)),
    'attention layers',
  ],
  [
    'an input of another type',
    (dir) =>
      editGraph(dir, (graph) => ({
        ...graph,
        inputs: graph.inputs.map((input) => ({ ...input, dataType: 'int64' as const })),
      })),
    'its input "positions"',
  ],
  [
    'a linked weights.bin',
    (dir) => linkSync(path.join(dir, 'weights.bin'), path.join(dir, '..', 'linked')),
    'hard link',
  ],
  [
    'weights outside of the folder',
    (dir) => {
      renameSync(path.join(dir, 'weights.bin'), path.join(dir, '..', 'weights.bin'));
      symlinkSync(path.join('..', 'weights.bin'), path.join(dir, 'weights.bin'));
    },
    'outside of the model',
  ],
];

describe('openFdqFolder', () => {
  it('maps every tensor of the graph from weights.bin', async () => {
    const dir = await convertedFolder();
    const { graph, manifest, weights } = await openFdqFolder(dir);
    const large = [...graph.initializers.values()].filter(({ data }) => data.kind !== 'inline');
    expect(large.map(({ name }) => name).sort()).toEqual(
      manifest.weights.tensors.map(({ name }) => name).sort(),
    );
    for (const { data } of large) {
      expect(data).toMatchObject({ kind: 'weight', members: [{ file: weights.path }] });
    }
    expect(weights.size).toBe(manifest.weights.bytes);
  });

  it.each(refusals)('refuses %s in one sentence', async (_what, damage, words) => {
    const dir = await convertedFolder();
    damage(dir);
    const error = await openFdqFolder(dir).catch((caught: unknown) => caught);
    expect(error).toMatchObject({
      code: expect.stringMatching(/invalid_checkpoint|unsupported_model/) as string,
    });
    expect((error as Error).message).toContain(words);
  });

  it('records the source, the request and why each layer is what it is', async () => {
    const { source, quantization, layers, scheme } = readManifest(await convertedFolder());
    expect(source.model).toContain('llama_tied');
    expect(source.files).toMatchObject([{ name: 'model.safetensors' }]);
    expect(quantization).toEqual({ quantization: 'wint4:g32', kvCacheDtype: 'auto' });
    expect(scheme).toBe('wint4:g32');
    expect(layers.every(({ reason }) => reason.length > 0)).toBe(true);
    expect(new Set(layers.map((layer) => layer.scheme))).toEqual(new Set(['wint4:g32', 'none']));
  });
});

describe('findDamagedTensor', () => {
  it('finds one changed byte in any tensor, and nothing in a whole file', async () => {
    const dir = await convertedFolder();
    const { manifest, weights } = await openFdqFolder(dir);
    const { tensors } = manifest.weights;
    expect(await findDamagedTensor(weights, tensors, { threads: 2 })).toBeUndefined();
    const file = path.join(dir, 'weights.bin');
    const whole = readFileSync(file);
    for (const { name, offset, bytes } of [tensors[0]!, tensors.at(-1)!]) {
      const damaged = Buffer.from(whole);
      damaged[offset + bytes - 1]! ^= 1;
      writeFileSync(file, damaged);
      const { weights: changed } = await openFdqFolder(dir);
      expect(await findDamagedTensor(changed, tensors, { threads: 2 })).toBe(name);
    }
  });

  it('refuses a file that was replaced meanwhile', async () => {
    const dir = await convertedFolder();
    const { manifest, weights } = await openFdqFolder(dir);
    truncateSync(path.join(dir, 'weights.bin'), 0);
    await expect(findDamagedTensor(weights, manifest.weights.tensors, { threads: 1 })).rejects.toMatchObject({
      code: 'invalid_checkpoint',
    });
  });
});

describe('serving a folder with flags', () => {
  it.each([
    ['the scheme it has', { quantization: 'wint4:g32' }],
    ['another spelling of it', { quantization: ' WINT4:G32 ' }],
    ['another cache type', { kvCacheDtype: 'int8' }],
  ] as const)('accepts %s', async (_what, flags) => {
    const model = await loadFolder(await convertedFolder(), flags);
    expect(model.scheme).toBe('wint4:g32');
    expect(model.arithmetic.kv).toBe('kvCacheDtype' in flags ? flags.kvCacheDtype : 'float32');
    await model.runner.close();
  });

  it.each([
    ['another scheme', { quantization: 'wint8' }],
    ['another ignore list', { quantization: 'wint4:g32', quantizationConfig: { ignore: ['re:.*o_proj'] } }],
    ['a quantized head', { quantizeLmHead: true, quantization: 'wint4:g32' }],
  ] as const)('refuses %s', async (_what, flags) => {
    await expect(loadFolder(await convertedFolder(), flags)).rejects.toMatchObject({
      code: 'already_quantized',
    });
  });

  it('keeps the cache type it was converted with', async () => {
    const folder = await createTempDir();
    const { output } = await convertFixture('llama_tied', folder, 'W4A16C8');
    const model = await loadFolder(output);
    expect(model.arithmetic.kv).toBe('int8');
    await model.runner.close();
  });
});
