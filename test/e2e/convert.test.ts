import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { loadModel } from '../../src/load/load-model.js';
import { BIN, cleanEnvironment, ROOT, runCli } from '../helpers/cli.js';
import { fixtureFolder, fixtureOptions } from '../helpers/fixture-model.js';
import { writeLargeCheckpoint } from '../helpers/large-checkpoint.js';
import { serveProcess } from '../helpers/serve-process.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const MIB = 1024 ** 2;
/** Of a peak the least of several counts: garbage that is not collected yet only adds to it. */
const RUNS = 4;

let dir: string;
let out: string;
beforeEach(async () => {
  dir = await createTempDir();
  out = path.join(dir, 'out');
});

async function complete(url: string): Promise<unknown> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', prompt: '15+85=', max_tokens: 12, temperature: 0, logprobs: 3 }),
  });
  const { choices } = (await response.json()) as { choices: unknown };
  return choices;
}

async function answerOf(model: string, flags: readonly string[]): Promise<unknown> {
  const server = await serveProcess([model, '--served-model-name', 'm', ...flags]);
  const choices = await complete(server.url);
  expect(await server.stop()).toBe(0);
  return choices;
}

/** Starts a conversion of a large checkpoint and kills it as soon as it writes. */
async function killWhileWriting(): Promise<number | null> {
  const model = path.join(dir, 'model');
  writeLargeCheckpoint(model, 8);
  const child = spawn(process.execPath, [BIN, 'convert', model, '-q', 'wint4:g32:mse', '-o', out], {
    env: cleanEnvironment(),
    stdio: 'ignore',
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'exit').then(([code]) => code as number | null);
  const isWriting = (): boolean => readdirSync(dir).some((name) => name.startsWith('.out.partial-'));
  while (!isWriting() && child.exitCode === null) await setImmediate();
  child.kill('SIGKILL');
  return exit;
}

describe('fdq convert', () => {
  it('writes a folder that answers as the checkpoint quantized while loading does', async () => {
    const args = ['convert', DEMO, '-q', 'wint4:g32', '--output', out, '--verify', '--json'];
    const { code, stdout, stderr } = await runCli(args);
    expect(stderr).not.toContain('Warning');
    expect(code).toBe(0);
    const { result } = JSON.parse(stdout) as { result: Record<string, unknown> };
    expect(result).toMatchObject({ output: out, format: 'fdq', scheme: 'wint4:g32' });
    expect(result['verified']).toMatch(/are equal$/);
    const online = await answerOf(DEMO, ['-q', 'wint4:g32']);
    expect(await answerOf(out, [])).toEqual(online);
  });

  it.each([
    ['no output', ['convert', DEMO], 2, '--output'],
    ['an unknown model', ['convert', './no-such-model', '-o', 'x'], 3, 'no-such-model'],
    ['an unknown scheme', ['convert', DEMO, '-o', 'x', '-q', 'wint9'], 2, 'wint9'],
    ['an unknown format', ['convert', DEMO, '-o', 'x', '--format', 'gguf'], 2, '--format'],
  ])('refuses %s', async (_what, args, exitCode, words) => {
    const { code, stderr } = await runCli(args, { cwd: dir });
    expect(code).toBe(exitCode);
    expect(stderr).toContain(words);
    expect(readdirSync(dir)).toEqual([]);
  });

  it('refuses to quantize again what it wrote for other engines', async () => {
    const again = path.join(dir, 'again');
    const format = ['--format', 'onnx', '-o'];
    expect(await runCli(['convert', DEMO, '-q', 'wint4:g128', ...format, out])).toMatchObject({ code: 0 });
    const model = path.join(out, 'model.onnx');
    for (const args of [
      ['convert', model, '-q', 'wint8', ...format, again],
      ['inspect', model, '-q', 'wint8'],
    ]) {
      const { code, stderr } = await runCli(args);
      expect(stderr).toContain('are quantized already, and no other one becomes wint8');
      expect(code).toBe(2);
    }
    expect(existsSync(again)).toBe(false);
  });

  it('starts over after it was killed, and clears away what was left', async () => {
    expect(await killWhileWriting()).toBeNull();
    expect(readdirSync(dir)).toHaveLength(2);
    expect((await runCli(['convert', DEMO, '-o', out])).code).toBe(0);
    expect(readdirSync(dir).sort()).toEqual(['model', 'out']);
  });

  it('leaves nothing but a message when the disk takes no more', () => {
    const command = `ulimit -f 200; exec "$0" "$@"`;
    const args = ['-c', command, process.execPath, BIN, 'convert', DEMO, '-o', out];
    const { status, stderr } = spawnSync('sh', args, { env: cleanEnvironment(), encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toMatch(/Could not write ".*weights\.bin": it is larger than files may be there/);
    expect(readdirSync(dir)).toEqual([]);
  });

  it.each([
    ['wint8', 'fdq'],
    ['nvfp4', 'safetensors'],
  ])('takes memory for a layer, not for the model: %s to %s', (quantization, format) => {
    const peaksOf = (layers: number): readonly number[] => {
      const model = path.join(dir, `model-${layers}`);
      writeLargeCheckpoint(model, layers);
      const script = path.join(dir, 'peak.mjs');
      const convert = JSON.stringify(path.join(ROOT, 'dist', 'convert', 'convert.js'));
      const options = { ...fixtureOptions(model), quantization };
      writeFileSync(
        script,
        `import { convert } from ${convert};
        await convert(
          { load: ${JSON.stringify(options)}, output: ${JSON.stringify(`${out}-${layers}`)}, format: '${format}',
            force: true, verify: false, signal: new AbortController().signal },
          { phase() {}, warn() {} },
        );
        console.log(process.resourceUsage().maxRSS * 1024);`,
      );
      const run = (): number =>
        Number(execFileSync(process.execPath, [script], { encoding: 'utf8', env: cleanEnvironment() }));
      return Array.from({ length: RUNS }, run);
    };
    const [one, six] = [peaksOf(1), peaksOf(6)];
    // Six layers are 200 MiB as stored and at least 50 MiB quantized.
    const said = `bytes of one layer: ${one.join(', ')}; of six: ${six.join(', ')}`;
    expect(Math.min(...six) - Math.min(...one), said).toBeLessThan(25 * MIB);
  });
});

describe('fdq cache', () => {
  async function fill(): Promise<string> {
    const model = fixtureFolder('llama_tied');
    const cache = { dir, maxBytes: Infinity, minSeconds: 0, isRequired: true };
    const options = { ...fixtureOptions(model), quantization: 'wint8', cache };
    const loaded = await loadModel(options, { phase: () => undefined, warn: () => undefined });
    await loaded.saveToCache?.({ isBusy: () => false, signal: new AbortController().signal });
    await loaded.runner.close();
    return readdirSync(path.join(dir, 'quantized'))[0] ?? '';
  }

  async function cache(...args: readonly string[]): Promise<{ code: number; json: Record<string, unknown> }> {
    const { code, stdout } = await runCli(['cache', ...args, '--cache-dir', dir, '--json']);
    return { code, json: JSON.parse(stdout) as Record<string, unknown> };
  }

  it('lists, verifies and clears entries', async () => {
    const key = await fill();
    expect((await cache('ls')).json['result']).toMatchObject({
      entries: [{ key, model: fixtureFolder('llama_tied') }],
    });
    expect(await cache('verify')).toMatchObject({ code: 0, json: { result: { entries: [{ key }] } } });

    const file = path.join(dir, 'quantized', key, 'weights.bin');
    const bytes = readFileSync(file);
    bytes[0]! ^= 1;
    writeFileSync(file, bytes);
    expect(await cache('verify')).toMatchObject({
      code: 4,
      json: { error: { code: 'check_failed', param: key } },
    });

    expect(await cache('clear', 'ffffffffffff')).toMatchObject({
      code: 2,
      json: { error: { param: 'key' } },
    });
    expect(await cache('clear', key.slice(0, 12))).toMatchObject({
      code: 0,
      json: { result: { removed: [key] } },
    });
    expect((await cache('ls')).json['result']).toMatchObject({ entries: [], totalBytes: 0 });
  });

  it('clears what a killed process left unfinished', async () => {
    await fill();
    const { pid } = spawnSync(process.execPath, ['--version']);
    const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
    const left = path.join(dir, 'quantized', `.${'0'.repeat(64)}.partial-${host}-${pid}-00000000`);
    mkdirSync(left);
    expect((await cache('clear')).code).toBe(0);
    expect(readdirSync(path.join(dir, 'quantized'))).toEqual([]);
  });

  it('is empty where there is none, and makes none', async () => {
    const { code, stdout } = await runCli(['cache', 'ls', '--cache-dir', path.join(dir, 'none')]);
    expect([code, stdout]).toEqual([0, '0 entries, 0 B\n']);
    expect(existsSync(path.join(dir, 'none'))).toBe(false);
  });
});
