import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { InspectReport } from '../../src/inspect/report.js';
import { runCli } from '../helpers/cli.js';
import { fixtureFolder } from '../helpers/fixture-model.js';
import { createTempDir } from '../helpers/temp-dir.js';

const QWEN3 = fixtureFolder('qwen3');

async function inspect(...args: readonly string[]): Promise<InspectReport> {
  const { code, stdout, stderr } = await runCli(['inspect', ...args, '--json']);
  expect(code, stderr + stdout).toBe(0);
  return (JSON.parse(stdout) as { readonly result: InspectReport }).result;
}

describe('fdq inspect', () => {
  it('adds up what it lists', async () => {
    const report = await inspect(QWEN3, '-q', 'wint8');
    const { layers, others, totals } = report;
    const unique = [...new Map(layers.map((row) => [row.tensor, row])).values()];
    expect(totals.bytesAfter).toBe(unique.reduce((sum, row) => sum + row.bytesAfter, 0) + others.bytesAfter);
    expect(totals.bytesBefore).toBe(report.model.storedBytes);
    const quantized = layers.filter(({ scheme }) => scheme === 'wint8');
    expect(quantized).toHaveLength(totals.quantizedLayers);
    expect(quantized.every(({ precision, error }) => precision === 'W8A16' && error === null)).toBe(true);
    const alternative = report.alternatives.find(({ scheme }) => scheme === 'wint8');
    expect(alternative?.weightBytes).toBe(totals.bytesAfter);
    expect(report.memory?.fits).toBe(true);
  });

  it('fails a check with 4, names the layers and prints the report all the same', async () => {
    const args = [
      'inspect',
      QWEN3,
      '-q',
      'wint4',
      '--measure',
      '--fail-if',
      'frobenius>5%',
      '--filter',
      'name~o_proj',
    ];
    const text = await runCli(args);
    expect(text.code).toBe(4);
    expect(text.stderr).toContain('model.layers.0.mlp.down_proj: frobenius');
    expect(text.stdout).toContain('model.layers.0.self_attn.o_proj');
    expect(text.stdout).not.toContain('down_proj');
    const json = await runCli([...args, '--json']);
    expect(json.code).toBe(4);
    const { status, result, error } = JSON.parse(json.stdout) as {
      readonly status: number;
      readonly result: InspectReport;
      readonly error: { readonly code: string };
    };
    expect({ status, code: error.code }).toEqual({ status: 4, code: 'check_failed' });
    expect(result.layers.every(({ name }) => name.endsWith('o_proj'))).toBe(true);
    expect((await runCli([...args.slice(0, 6), 'sqnr<1dB'])).code).toBe(0);
  });

  it('chooses schemes within a budget, the same ones again from the file it writes', async () => {
    const file = path.join(await createTempDir(), 'plan.json');
    const none = await inspect(QWEN3);
    const least = await inspect(QWEN3, '-q', 'wint4');
    const budget = Math.floor((none.totals.bytesAfter + 3 * least.totals.bytesAfter) / 4);
    const auto = ['-q', 'auto', '--max-weight-bytes', String(budget), '--save-quantization-config', file];
    const chosen = await inspect(QWEN3, ...auto);
    expect(chosen.totals.bytesAfter).toBeLessThanOrEqual(budget);
    expect(chosen.totals.bytesAfter).toBeGreaterThan(0.9 * budget);
    const uniform = await inspect(QWEN3, '-q', 'wint4:g128', '--measure');
    expect(chosen.totals.error?.frobenius).toBeLessThan(uniform.totals.error?.frobenius ?? 0);
    const saved = await readFile(file, 'utf8');
    const again = await inspect(QWEN3, '--quantization-config', `@${file}`);
    expect(again.layers.map(({ scheme }) => scheme)).toEqual(chosen.layers.map(({ scheme }) => scheme));
    expect(again.totals.bytesAfter).toBe(chosen.totals.bytesAfter);
    await inspect(QWEN3, ...auto, '--threads', '1');
    expect(await readFile(file, 'utf8')).toBe(saved);
  });

  it('bounds the error of every layer', async () => {
    const { layers } = await inspect(QWEN3, '-q', 'auto', '--max-error', '0.05');
    const quantized = layers.filter(({ error }) => error !== null);
    expect(quantized.length).toBeGreaterThan(0);
    for (const { error } of quantized) expect(error?.frobenius).toBeLessThanOrEqual(0.05);
  });

  it('compares with a saved report and explains a layer', async () => {
    const file = path.join(await createTempDir(), 'before.json');
    await writeFile(file, JSON.stringify(await inspect(QWEN3, '-q', 'wint4')));
    const diff = await runCli(['inspect', QWEN3, '-q', 'wint8', '--diff', file]);
    expect(diff.stdout).toMatch(/model\.layers\.0\.mlp\.up_proj: wint4 .* → wint8 /);
    const explained = await runCli([
      'inspect',
      QWEN3,
      '-q',
      'wint4',
      '--explain',
      'model.layers.0.mlp.up_proj',
    ]);
    expect(explained.stdout).toMatch(/→ rule \d+: everything else: wint4/);
  });

  it.each([
    [['-q', 'auto'], /needs a limit/],
    [['-q', 'wint4', '--max-error', '0.1'], /--max-error is for --quantization auto/],
    [['--sort', 'sqnr'], /only after measuring/],
    [['--fail-if', 'sqn<3'], /Did you mean sqnr/],
    [['-q', '{"quantization": "auto", "linear": "wint8"}', '--max-error', '1'], /linear name some too/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await runCli(['inspect', QWEN3, ...args]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });

  it('says how much a budget that is too small would have to be', async () => {
    const { code, stderr } = await runCli(['inspect', QWEN3, '-q', 'auto', '--max-weight-bytes', '1KiB']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/the smallest takes .* of which .* are not quantized/);
  });
});
