import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { inspectModel } from '../../../src/inspect/inspect.js';
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

  it('has no original weights to measure', async () => {
    const dir = await createTempDir();
    await writeGenaiModel('llama', dir, {});
    const measuring = inspectModel({
      model: dir,
      quantization: { quantization: 'wint8' },
      dtype: 'auto',
      memory: { threads: 1, utilization: 0.9 },
      measure: true,
    });
    expect((await catchError(measuring)).code).toBe('usage');
  });
});
