import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { inspectModel, type InspectOptions } from '../../../src/inspect/inspect.js';
import type { InspectReport } from '../../../src/inspect/report.js';
import { convertFixture } from '../../helpers/convert-fixture.js';
import { fixtureFolder } from '../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../helpers/genai-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from '../hub/catch-error.js';

async function inspect(model: string, quantization?: string): Promise<InspectReport> {
  const { report } = await inspectModel({
    model,
    quantization: quantization === undefined ? {} : { quantization },
    dtype: 'auto',
    memory: { threads: 1, utilization: 0.9 },
    measure: false,
  });
  return report;
}

function kindsOf({ layers }: InspectReport): unknown {
  return layers.map(({ name, kind }) => [name, kind]);
}

describe('inspect of a converted folder', () => {
  it.each([
    ['llama', ['linear', 'lm_head']],
    ['llama_tied', ['linear', 'tied embedding']],
  ])('%s: the kinds of its layers are those of the checkpoint', async (name, kinds) => {
    const dir = await createTempDir();
    await convertFixture(name, dir, 'wint8');
    const converted = await inspect(path.join(dir, 'out'));
    expect(kindsOf(converted)).toEqual(kindsOf(await inspect(fixtureFolder(name), 'wint8')));
    expect(converted.layers.map(({ kind }) => kind)).toEqual(expect.arrayContaining(kinds));
  });
});

describe('inspect of a folder of onnxruntime-genai', () => {
  it('shows the decoder that serve would run, quantized as asked', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, {});
    const report = await inspect(dir, 'wint8');
    const checkpoint = await inspect(fixtureFolder('llama'), 'wint8');
    expect(report.model.kind).toBe('genai');
    const quantized = report.layers.filter(({ scheme }) => scheme === 'wint8');
    expect(quantized).toHaveLength(checkpoint.totals.quantizedLayers);
    expect(quantized.every(({ kernel }) => kernel.startsWith('fdq '))).toBe(true);
    expect(report.layers.find(({ name }) => name.endsWith('lm_head'))?.kind).toBe('lm_head');
    expect(report.memory?.fits).toBe(true);
    const unique = [...new Map(report.layers.map((row) => [row.tensor, row])).values()];
    expect(report.totals.bytesAfter).toBe(
      unique.reduce((sum, row) => sum + row.bytesAfter, 0) + report.others.bytesAfter,
    );
  });

  it('shows the plain ONNX model where serve would refuse it, and says why', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, { decoder: { pipeline: [] } });
    const report = await inspect(dir);
    expect(report.model.kind).toBe('onnx');
    expect(report.warnings.join()).toMatch(/fdq serve would not run this model\. .*pipeline/);
  });

  const asked = { quantization: 'wint8' };
  const options = (model: string, changes: Partial<InspectOptions>): InspectOptions => ({
    model,
    quantization: {},
    dtype: 'auto',
    memory: { threads: 1, utilization: 0.9 },
    measure: false,
    ...changes,
  });

  it('measures its floats, which lie transposed, as those of the checkpoint', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, {});
    const measured = { quantization: asked, measure: true };
    const { report } = await inspectModel(options(dir, measured));
    const checkpoint = await inspectModel(options(fixtureFolder('llama'), measured));
    const errorOf = (rows: InspectReport['layers'], name: string) =>
      rows.find((row) => row.name.endsWith(name))?.error;
    for (const name of ['layers.0.mlp.down_proj', 'layers.1.mlp.up_proj']) {
      expect(errorOf(report.layers, name)).toEqual(errorOf(checkpoint.report.layers, name));
      expect(errorOf(report.layers, name)?.frobenius).toBeGreaterThan(0);
    }
  });

  it('chooses schemes for it, as convert does for its model', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, {});
    const { report, auto, explain } = await inspectModel(options(dir, { auto: { maxError: 0.05 } }));
    const quantized = report.layers.filter(({ scheme }) => scheme !== 'none');
    expect(quantized.length).toBeGreaterThan(5);
    expect(quantized.every(({ error }) => error !== null && error.frobenius <= 0.05)).toBe(true);
    expect(auto?.weightBytes).toBe(report.totals.bytesAfter);
    expect(explain?.('*.layers.0.mlp.down_proj')).toHaveLength(1);
  });

  it('has no original weights to measure once it is quantized', async () => {
    const dir = await createTempDir();
    const { output } = await convertFixture('llama', dir, 'wint8', { format: 'onnx' });
    const ignored = { measure: true, quantization: {} };
    expect((await catchError(inspectModel(options(output, ignored)))).code).toBe('usage');
    const chosen = catchError(inspectModel(options(output, { auto: { maxError: 0.05 } })));
    expect((await chosen).code).toBe('already_quantized');
  });
});

describe('bytes before', () => {
  it('are those of the checkpoint for a converted folder', async () => {
    const dir = await createTempDir();
    await convertFixture('llama', dir, 'wint4:g32');
    const checkpoint = await inspect(fixtureFolder('llama'), 'wint4:g32');
    const { totals, layers, others } = await inspect(path.join(dir, 'out'));
    expect(checkpoint.totals.bytesBefore).toBe(checkpoint.model.storedBytes);
    expect(others.bytesBefore).toBe(others.bytesAfter);
    expect(totals.bytesBefore - others.bytesBefore).toBe(
      checkpoint.totals.bytesBefore - checkpoint.others.bytesBefore,
    );
    expect(layers.map(({ bytesBefore }) => bytesBefore)).toEqual(
      checkpoint.layers.map(({ bytesBefore }) => bytesBefore),
    );
    expect(totals.bytesAfter).toBeLessThan(totals.bytesBefore / 2);
  });

  it.each(['wint4:g32', 'none'])(
    'are those of the file for an ONNX model of %s, by file and by folder',
    async (scheme) => {
      const dir = await createTempDir();
      await convertFixture('llama', dir, scheme, { format: 'onnx' });
      const file = await inspect(path.join(dir, 'out', 'model.onnx'));
      expect(file.totals.bytesBefore).toBe(file.model.storedBytes);
      expect(file.totals.bytesAfter).toBe(file.model.storedBytes);
      for (const { bytesBefore, bytesAfter } of file.layers) expect(bytesBefore).toBe(bytesAfter);
      const byTensor = new Map(file.layers.map(({ tensor, bytesBefore }) => [tensor, bytesBefore]));
      const folder = await inspect(path.join(dir, 'out'));
      expect(folder.layers.length).toBeGreaterThan(0);
      for (const { tensor, bytesBefore } of folder.layers) expect(bytesBefore).toBe(byTensor.get(tensor));
    },
  );

  it('are those of codes and scales for a checkpoint that is stored quantized', async () => {
    const { layers, totals, model } = await inspect(
      fixtureFolder(path.join('..', 'offline', 'qwen3_gptq_g128')),
    );
    const row = layers.find(({ name }) => name === 'model.layers.0.self_attn.q_proj');
    const [n = 0, k = 0] = row?.shape ?? [];
    const groups = k / 128;
    expect(row?.bytesBefore).toBe((n * k) / 2 + n * groups * 2 + (n * groups) / 2);
    // The order of columns (g_idx) is read only where it says something.
    expect(totals.bytesBefore).toBeLessThanOrEqual(model.storedBytes);
    expect(totals.bytesBefore).toBeGreaterThan(0.95 * model.storedBytes);
  });
});

describe('a budget that no choice of schemes fits', () => {
  it.each([
    ['llama', {}, 'Or quantize more: --quantize-lm-head --quantize-embeddings.'],
    ['llama', { quantizeLmHead: true }, 'Or quantize more: --quantize-embeddings.'],
    ['llama_tied', {}, 'Or quantize more: --quantize-embeddings.'],
    ['llama_tied', { quantizeEmbeddings: true }, undefined],
  ])('names flags that would help %s with %j', async (name, quantization, advice) => {
    const inspection = inspectModel({
      model: fixtureFolder(name),
      quantization,
      auto: { maxWeightBytes: 1000 },
      dtype: 'auto',
      memory: { threads: 1, utilization: 0.9 },
      measure: false,
    });
    const { code, suggestions } = await catchError(inspection);
    expect(code).toBe('out_of_memory');
    expect(suggestions.find((each) => each.includes('quantize more'))).toBe(advice);
  });
});
