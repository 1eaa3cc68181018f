import { mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parseModel } from '../../../src/graph/onnx.js';
import type { LoadedModel } from '../../../src/load/load-model.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import {
  blockRange,
  loadFolder,
  maxAbsDifference,
  readGolden,
  runStep,
} from '../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../helpers/genai-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

async function writeFolder(): Promise<{ readonly dir: string; readonly folder: string }> {
  const dir = await createTempDir();
  const folder = path.join(dir, 'in');
  mkdirSync(folder);
  await writeGenaiModel('qwen3', folder);
  return { dir, folder };
}

async function logitsOf(loading: Promise<LoadedModel>): Promise<Float32Array> {
  const model = await loading;
  onTestFinished(() => model.runner.close());
  const ids = readGolden('qwen3').prompts[2]?.ids ?? [];
  const chunk = { ids, start: 0, blocks: blockRange(0, 12), rows: [ids.length - 1] };
  const [row] = await runStep(model, [chunk]);
  return row ?? new Float32Array();
}

describe('fdq convert of a folder of onnxruntime-genai', () => {
  it.each(['wint8', 'wint4:g32'])('writes one that is served as %s', async (quantization) => {
    const { dir, folder } = await writeFolder();
    const { output, verified } = await convertFolder(folder, dir, quantization, {
      format: 'onnx',
      verify: true,
    });
    expect(verified).toMatch(/have a cosine of at least 0\.9\d+ with the float model/);
    for (const name of ['genai_config.json', 'tokenizer.json'])
      expect(readFileSync(path.join(output, name))).toEqual(readFileSync(path.join(folder, name)));
    const { nodes } = parseModel(readFileSync(path.join(output, 'model.onnx')), { dir: output });
    expect(nodes.filter(({ opType }) => opType === 'MatMulNBits')).not.toEqual([]);
    expect(nodes.filter(({ opType }) => opType === 'Slice' || opType === 'Concat')).toEqual([]);
    const found = await logitsOf(loadFolder(output));
    const expected = await logitsOf(loadFolder(folder, { quantization }));
    expect(maxAbsDifference(found, expected)).toBeLessThanOrEqual(readGolden('qwen3').tolerance.atol_float32);
  });

  it('reads one in the Hugging Face cache, whose files are links', async () => {
    const { dir, folder } = await writeFolder();
    const repo = path.join(dir, 'models--org--tiny');
    const snapshot = path.join(repo, 'snapshots', '0'.repeat(40));
    mkdirSync(path.join(repo, 'blobs'), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    for (const [index, name] of readdirSync(folder).entries()) {
      renameSync(path.join(folder, name), path.join(repo, 'blobs', String(index)));
      symlinkSync(`../../blobs/${index}`, path.join(snapshot, name));
    }
    const { output } = await convertFolder(snapshot, dir, 'wint8', { format: 'onnx', verify: true });
    expect(readdirSync(output)).toContain('model.onnx.data');
    writeFileSync(path.join(repo, 'blobs', String(readdirSync(snapshot).indexOf('model.onnx'))), '');
    const damaged = convertFolder(snapshot, await createTempDir(), 'wint8', { format: 'onnx' });
    await expect(damaged).rejects.toThrow(
      `Cannot read the ONNX model ${JSON.stringify(path.join(snapshot, 'model.onnx'))}. The file is empty.`,
    );
    await expect(loadFolder(snapshot)).rejects.toThrow(
      `${path.join(snapshot, 'model.onnx')}". The file is empty.`,
    );
  });

  it('takes the configuration along when its model is given by name', async () => {
    const { dir, folder } = await writeFolder();
    const file = path.join(folder, 'model.onnx');
    const { output } = await convertFolder(file, dir, 'wint8', { format: 'onnx' });
    expect(readdirSync(output)).toContain('genai_config.json');
    expect(readdirSync(output)).toContain('model.onnx.data');
  });

  it('leaves the configuration of another model where it is', async () => {
    const { dir, folder } = await writeFolder();
    const file = path.join(folder, 'other.onnx');
    writeFileSync(file, readFileSync(path.join(folder, 'model.onnx')));
    const { output } = await convertFolder(file, dir, 'wint8', { format: 'onnx' });
    expect(readdirSync(output)).not.toContain('genai_config.json');
  });

  it('refuses another format', async () => {
    const { dir, folder } = await writeFolder();
    await expect(convertFolder(folder, dir, 'wint8')).rejects.toMatchObject({
      code: 'unsupported_model',
      message: expect.stringContaining('is an ONNX model: it is written as onnx, not as fdq') as string,
    });
  });
});
