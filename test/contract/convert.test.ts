import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CONVERT_FLAGS } from '../../src/cli/convert-flags.js';
import { FORMAT_NAMES, writerOf } from '../../src/convert/formats.js';
import { openCheckpoint } from '../../src/hub/checkpoint.js';
import { locateModel } from '../../src/hub/locate.js';
import { parseModelManifest } from '../../src/load/folder/manifest.js';
import { inspectModel } from '../../src/inspect/inspect.js';
import type { InspectReport } from '../../src/inspect/report.js';
import { planCheckpoint } from '../../src/load/plan.js';
import { streamWeights } from '../../src/load/stream-weights.js';
import { openWeightFile } from '../../src/hub/weight-file.js';
import { SCHEMES } from '../../src/quant/registry.js';
import { loadRuntime } from '../../src/runtime/load-addon.js';
import { convertFixture } from '../helpers/convert-fixture.js';
import { fixtureFolder, fixtureOptions, loadFixture, loadFolder, runStep } from '../helpers/fixture-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

const PROMPT = { ids: [1, 2, 3, 5, 8, 13, 21, 34, 55, 89], start: 0, blocks: [0], rows: [0, 4, 9] };

/** SHA-256 of every buffer `fdq serve` would hand to its session. */
async function digestsOnline(name: string, quantization: string): Promise<ReadonlyMap<string, string>> {
  const checkpoint = await openCheckpoint(await locateModel(fixtureFolder(name)));
  const options = { ...fixtureOptions(fixtureFolder(name)), quantization, offline: true };
  const { graph } = await planCheckpoint(checkpoint, options, 'scalar');
  const initializers = await streamWeights(graph, {
    addon: loadRuntime().addon,
    threads: 2,
    open: (file) => openWeightFile(file),
    onProgress: () => undefined,
  });
  return new Map(
    initializers.map(({ name: tensor, memory, byteOffset, byteLength }) => [
      tensor,
      createHash('sha256')
        .update(new Uint8Array(memory, byteOffset, byteLength))
        .digest('hex'),
    ]),
  );
}

describe.each(SCHEMES.map(({ name }) => name))('fdq convert --quantization %s', (scheme) => {
  it('writes the bytes fdq serve would run', async () => {
    const folder = await createTempDir();
    const { output } = await convertFixture('qwen3', folder, scheme);
    const manifest = parseModelManifest(readFileSync(path.join(output, 'fdq.json')), 'fdq.json');
    const online = await digestsOnline('qwen3', scheme);
    const { tensors } = manifest.weights;
    expect(new Map(tensors.map(({ name, sha256 }) => [name, sha256]))).toEqual(online);
    const bytes = readFileSync(path.join(output, 'weights.bin'));
    for (const { offset, bytes: length, sha256 } of tensors) {
      expect(offset % 4096).toBe(0);
      const found = createHash('sha256').update(bytes.subarray(offset, offset + length));
      expect(found.digest('hex')).toBe(sha256);
    }
  });
});

describe('inspecting a converted folder', () => {
  it('shows the errors that inspect --measure finds in the checkpoint', async () => {
    const { output } = await convertFixture('qwen3', await createTempDir(), 'wint4:g32');
    const flags = {
      dtype: 'auto',
      measure: true,
      threads: 2,
      memory: { utilization: 0.9, threads: 2 },
    } as const;
    const quantization = { quantization: 'wint4:g32' };
    const { report: measured } = await inspectModel({
      ...flags,
      model: fixtureFolder('qwen3'),
      quantization,
    });
    const { report: kept } = await inspectModel({ ...flags, model: output, quantization: {} });
    const errorsOf = ({ layers }: InspectReport): ReadonlyMap<string, unknown> =>
      new Map(layers.map(({ tensor, error }) => [tensor, error]));
    expect(errorsOf(kept)).toEqual(errorsOf(measured));
    expect(kept.totals.error).toEqual(measured.totals.error);
    expect(kept.totals.error?.sqnrDb).toBeGreaterThan(15);
  });
});

describe('serving a converted folder', () => {
  it.each(['float32', 'bfloat16'] as const)('gives the logits of the online path under %s', async (dtype) => {
    const folder = await createTempDir();
    const { output } = await convertFixture('llama_tied', folder, 'wint8');
    const online = await loadFixture('llama_tied', { quantization: 'wint8', dtype });
    const expected = await runStep(online, [PROMPT]);
    await online.runner.close();
    const stored = await loadFolder(output, { dtype });
    const found = await runStep(stored, [PROMPT]);
    await stored.runner.close();
    expect(found).toEqual(expected);
    expect(stored.scheme).toBe('wint8');
    expect(stored.layers).toEqual(online.layers);
    expect(stored.decoder).toEqual(online.decoder);
    expect(stored.weightBytes).toBe(online.weightBytes);
    expect(stored.arithmetic).toEqual(online.arithmetic);
  });
});

describe('the formats', () => {
  it('are those the flag offers, the default first, each under its own name', () => {
    expect(CONVERT_FLAGS.format.options).toEqual(FORMAT_NAMES);
    expect(CONVERT_FLAGS.format.default).toBe(FORMAT_NAMES[0]);
    for (const name of FORMAT_NAMES) expect(writerOf(name).name).toBe(name);
  });
});
