import { cp, rm } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { FormatName } from '../../../src/convert/formats.js';
import { inspectModel, type InspectOptions } from '../../../src/inspect/inspect.js';
import { convertFolder } from '../../helpers/convert-fixture.js';
import { fixtureFolder } from '../../helpers/fixture-model.js';
import { writeGenaiModel } from '../../helpers/genai-model.js';
import { startHubServer } from '../../helpers/hub-server.js';
import { createTempDir } from '../../helpers/temp-dir.js';

const ID = 'org/mute';

/** A checkpoint in `mute`, which is no name of a temporary folder. */
async function writeMute(): Promise<string> {
  const folder = path.join(await createTempDir(), 'mute');
  await cp(fixtureFolder('llama'), folder, { recursive: true });
  await rm(path.join(folder, 'tokenizer.json'));
  return folder;
}

async function warningsOf(
  model: string,
  format: FormatName,
): Promise<{ readonly warnings: readonly string[]; readonly output: string }> {
  const warnings: string[] = [];
  const warn = (line: string) => void warnings.push(line);
  const { output } = await convertFolder(model, await createTempDir(), 'wint8', { format, warn });
  return { warnings, output };
}

async function inspect(model: string, locate: InspectOptions['locate'] = {}): Promise<readonly string[]> {
  const { report } = await inspectModel({
    model,
    locate,
    quantization: {},
    dtype: 'auto',
    memory: { threads: 1, utilization: 0.9 },
    measure: false,
  });
  return report.warnings;
}

const saying = (model: string): readonly unknown[] => [
  expect.stringContaining(
    `${JSON.stringify(model)} has no tokenizer.json, without which fdq serve refuses it`,
  ),
];

describe('a model without a tokenizer', () => {
  it.each(['fdq', 'onnx', 'safetensors'] as const)('is named when it is converted to %s', async (format) => {
    const folder = await writeMute();
    expect(await inspect(folder)).toEqual(saying(folder));
    const { warnings, output } = await warningsOf(folder, format);
    expect(warnings).toEqual(saying(folder));
    expect(await inspect(output)).toEqual(saying(output));
    const whole = await warningsOf(fixtureFolder('llama'), format);
    expect(whole.warnings).toEqual([]);
    expect(await inspect(whole.output)).toEqual([]);
  });

  it('is named when it is one of onnxruntime-genai', async () => {
    const folder = await createTempDir();
    await writeGenaiModel('llama', folder, {});
    expect(await inspect(folder)).toEqual([]);
    await rm(path.join(folder, 'tokenizer.json'));
    const { warnings, output } = await warningsOf(folder, 'onnx');
    expect(warnings).toEqual(saying(folder));
    expect(await inspect(output)).toEqual(saying(output));
    // By itself the file may be any model.
    expect((await warningsOf(path.join(folder, 'model.onnx'), 'onnx')).warnings).toEqual([]);
    expect(await inspect(path.join(folder, 'model.onnx'))).toEqual([]);
  });

  it('is named where only its headers are read', async () => {
    const server = await startHubServer({ models: { [ID]: await writeMute() } });
    onTestFinished(() => server.close());
    const cacheDir = await createTempDir();
    const env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: cacheDir, HF_HOME: cacheDir };
    expect(await inspect(ID, { env })).toEqual(saying(ID));
  });
});
