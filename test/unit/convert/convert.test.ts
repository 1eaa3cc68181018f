import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { beforeEach, describe, expect, it } from 'vitest';
import { checkFreeSpace } from '../../../src/convert/target.js';
import { verifyFdq } from '../../../src/convert/verify-fdq.js';
import { openCheckpoint } from '../../../src/hub/checkpoint.js';
import { planCheckpoint } from '../../../src/load/plan.js';
import { convertFixture, convertFolder } from '../../helpers/convert-fixture.js';
import { fixtureFolder, fixtureOptions, loadFolder, runStep } from '../../helpers/fixture-model.js';
import { createTempDir } from '../../helpers/temp-dir.js';

let dir: string;
let out: string;
beforeEach(async () => {
  dir = await createTempDir();
  out = path.join(dir, 'out');
});

describe('convert', () => {
  it.each(['fdq', 'safetensors', 'onnx'] as const)(
    'writes %s with the modes of the umask',
    async (format) => {
      const before = process.umask(0o027);
      try {
        await convertFixture('llama_tied', dir, 'wint8', { format });
      } finally {
        process.umask(before);
      }
      const modeOf = (file: string): number => statSync(file).mode & 0o777;
      expect(modeOf(out)).toBe(0o750);
      expect(readdirSync(out).filter((name) => modeOf(path.join(out, name)) !== 0o640)).toEqual([]);
    },
  );

  it('copies configuration, tokenizer and chat templates, links as files', async () => {
    const model = path.join(dir, 'snapshots', 'model');
    cpSync(fixtureFolder('llama_tied'), model, { recursive: true });
    mkdirSync(path.join(dir, 'blobs'));
    cpSync(path.join(model, 'config.json'), path.join(dir, 'blobs', 'c0nf16'));
    writeFileSync(path.join(model, 'modeling_custom.py'), 'import os');
    writeFileSync(path.join(model, 'chat_template.jinja'), '{{ messages }}');
    mkdirSync(path.join(model, 'additional_chat_templates'));
    writeFileSync(path.join(model, 'additional_chat_templates', 'tool.jinja'), '{{ tools }}');
    const linked = path.join(dir, 'snapshots', 'linked');
    cpSync(model, linked, { recursive: true });
    const { rmSync } = await import('node:fs');
    rmSync(path.join(linked, 'config.json'));
    symlinkSync(path.join('..', '..', 'blobs', 'c0nf16'), path.join(linked, 'config.json'));

    await convertFolder(linked, dir, 'wint8');
    const names = readdirSync(out);
    expect(names).toEqual(
      expect.arrayContaining(['additional_chat_templates', 'chat_template.jinja', 'config.json', 'fdq.json']),
    );
    expect(names).not.toContain('modeling_custom.py');
    expect(names).not.toContain('model.safetensors');
    expect(readFileSync(path.join(out, 'config.json'))).toEqual(
      readFileSync(path.join(model, 'config.json')),
    );
    expect(readdirSync(path.join(out, 'additional_chat_templates'))).toEqual(['tool.jinja']);
  });

  it('writes the same bytes every time', async () => {
    const first = await convertFixture('qwen2', dir, 'wint4');
    const second = await convertFixture('qwen2', dir, 'wint4', { output: path.join(dir, 'again') });
    for (const name of ['fdq.json', 'model.onnx', 'weights.bin']) {
      const again = readFileSync(path.join(second.output, name));
      expect(readFileSync(path.join(first.output, name)).equals(again)).toBe(true);
    }
  });

  it('makes servable what cannot be quantized while loading', async () => {
    const { output, scheme } = await convertFixture('llama_tied', dir, 'wint2');
    expect(scheme).toBe('wint2');
    const model = await loadFolder(output);
    const [logits] = await runStep(model, [{ ids: [1, 2, 3], start: 0, blocks: [0], rows: [2] }]);
    await model.runner.close();
    expect(logits?.every(Number.isFinite)).toBe(true);
  });

  it('refuses a folder that exists, unless it may replace an earlier conversion', async () => {
    await convertFixture('llama_tied', dir, 'wint8');
    await expect(convertFixture('llama_tied', dir, 'wint4')).rejects.toMatchObject({
      code: 'output_exists',
      exitCode: 2,
      suggestions: [expect.stringContaining('--force') as string],
    });
    await convertFixture('llama_tied', dir, 'wint4', { force: true });
    expect(readFileSync(path.join(out, 'fdq.json'), 'utf8')).toContain('"scheme": "wint4"');
    expect(readdirSync(dir)).toEqual(['out']);
  });

  it.each([
    ['a folder without a model', (): void => writeFileSync(path.join(out, 'notes.txt'), ''), 'no model'],
    [
      'a folder with folders',
      (): void => {
        writeFileSync(path.join(out, 'config.json'), '{}');
        mkdirSync(path.join(out, 'thesis'));
      },
      'thesis',
    ],
  ])('does not replace %s', async (_what, fill, words) => {
    mkdirSync(out);
    fill();
    const before = readdirSync(out);
    await expect(convertFixture('llama_tied', dir, 'wint8', { force: true })).rejects.toMatchObject({
      code: 'output_exists',
      message: expect.stringContaining(words) as string,
    });
    expect(readdirSync(out)).toEqual(before);
  });

  it('does not replace the model it reads', async () => {
    const model = path.join(dir, 'model');
    cpSync(fixtureFolder('llama_tied'), model, { recursive: true });
    await expect(convertFolder(model, dir, 'wint8', { force: true, output: model })).rejects.toMatchObject({
      code: 'output_exists',
    });
    expect(existsSync(path.join(model, 'model.safetensors'))).toBe(true);
  });

  it('refuses to convert its own output', async () => {
    const { output } = await convertFixture('llama_tied', dir, 'wint8');
    const again = convertFolder(output, dir, 'wint4', { output: path.join(dir, 'again') });
    await expect(again).rejects.toMatchObject({ code: 'already_quantized', exitCode: 2 });
  });

  it('leaves nothing when it is interrupted or the checkpoint is damaged', async () => {
    const controller = new AbortController();
    const signal = controller.signal;
    controller.abort(new Error('stop'));
    await expect(convertFixture('llama_tied', dir, 'wint8', { signal })).rejects.toThrow('stop');
    expect(readdirSync(dir)).toEqual([]);

    const model = path.join(dir, 'model');
    cpSync(fixtureFolder('llama_tied'), model, { recursive: true });
    const file = path.join(model, 'model.safetensors');
    const bytes = readFileSync(file);
    bytes.fill(0xff, bytes.length / 2);
    writeFileSync(file, bytes);
    await expect(convertFolder(model, dir, 'wint8')).rejects.toMatchObject({ code: 'non_finite_weight' });
    expect(readdirSync(dir)).toEqual(['model']);
  });

  it('compares the size with the free space before it reads a weight', async () => {
    await expect(checkFreeSpace(out, Number.MAX_SAFE_INTEGER)).rejects.toMatchObject({
      code: 'write_failed',
      message: expect.stringMatching(/takes up to \d+ MiB, but .* has \d+ MiB left/) as string,
    });
    await expect(checkFreeSpace(out, 1)).resolves.toBeUndefined();
  });
});

describe('--verify', () => {
  it('says what it found equal', async () => {
    const { verified } = await convertFixture('llama_tied', dir, 'wint8', { verify: true });
    expect(verified).toMatch(/^\d+ tensors and \d+ logits are equal$/);
  });

  it('finds a changed byte, and a model that answers otherwise', async () => {
    const model = fixtureFolder('llama_tied');
    const options = { ...fixtureOptions(model), quantization: 'wint8', offline: true };
    const plan = await planCheckpoint(
      await openCheckpoint({ dir: model, reference: model }),
      options,
      'scalar',
    );
    await convertFolder(model, dir, 'wint8');
    const job = { plan, load: options, dir: out, signal: new AbortController().signal };

    const file = path.join(out, 'weights.bin');
    const whole = readFileSync(file);
    const damaged = Buffer.from(whole);
    damaged[100]! ^= 0x40;
    writeFileSync(file, damaged);
    await expect(verifyFdq(job)).rejects.toMatchObject({
      code: 'check_failed',
      exitCode: 4,
      message: expect.stringContaining('not those that were written') as string,
    });

    writeFileSync(file, whole);
    const other = { ...plan, quantization: { quantization: 'wint4' } };
    await expect(verifyFdq({ ...job, plan: other })).rejects.toMatchObject({
      code: 'check_failed',
      message: expect.stringMatching(/logit \d+ of position \d+ is/) as string,
    });
    truncateSync(file, 4096);
    await expect(verifyFdq(job)).rejects.toMatchObject({ code: 'invalid_checkpoint' });
  });
});
