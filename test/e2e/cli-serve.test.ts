import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { link, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BIN, cleanEnvironment, ROOT, runCli } from '../helpers/cli.js';

const DEMO = path.join(ROOT, 'models', 'demo');

let folder: string;
const children: ChildProcess[] = [];
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'fdq-serve-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  await rm(folder, { recursive: true, force: true });
});

interface Served {
  readonly child: ChildProcess;
  /** What stderr has said so far. */
  readonly stderr: () => string;
  readonly stdout: () => string;
  readonly exit: Promise<number>;
}

/** Starts `fdq serve` on a free port and waits for its ready line. */
async function startServe(args: readonly string[] = []): Promise<Served> {
  const child = spawn(process.execPath, [BIN, 'serve', DEMO, '--port', '0', ...args], {
    cwd: folder,
    env: cleanEnvironment(),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.push(child);
  let stderr = '';
  let stdout = '';
  const exit = once(child, 'close').then(([code]) => code as number);
  const ready = new Promise<void>((resolve) => {
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
      if (/^curl .*\n/m.test(stderr)) resolve();
    });
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (stdout.includes('\n}\n')) resolve();
    });
  });
  const early = exit.then((code) => {
    throw new Error(`exited with ${code} before it was ready: ${stderr}`);
  });
  await Promise.race([ready, early]);
  early.catch(() => undefined);
  return { child, exit, stderr: () => stderr, stdout: () => stdout };
}

/** Runs the curl line as a shell would and returns the body. */
async function runShell(line: string): Promise<string> {
  const shell = spawn('sh', ['-c', `${line} -sS`], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  shell.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await once(shell, 'close');
  return output;
}

describe('fdq serve', () => {
  it('prints a ready line and a curl line that works, and stops on SIGTERM with 0', async () => {
    const readyFile = path.join(folder, 'ready');
    await writeFile(readyFile, 'of an earlier start');
    await link(readyFile, path.join(folder, 'other-name'));
    const served = await startServe(['-q', 'block_wise_fp8', '--ready-file', readyFile]);
    const [ready, url] = /^Ready: (http:\/\/127\.0\.0\.1:\d+) \| demo \| block_wise_fp8 \| weights .*$/m.exec(
      served.stderr(),
    ) ?? ['', ''];
    expect(ready).toMatch(
      /KV cache \d+ tokens of \S+ KiB \(bfloat16\) \| context \d+ tokens \| \d+ sequences \| loaded in \d+\.\d s$/,
    );
    expect(await readFile(readyFile, 'utf8')).toBe(`${url}\n`);
    // Not written in place: a reader never finds half a URL.
    expect(await readFile(path.join(folder, 'other-name'), 'utf8')).toBe('of an earlier start');
    const curl = /^curl .*$/m.exec(served.stderr())?.[0] ?? 'false';
    const answer = JSON.parse(await runShell(curl)) as {
      choices: { message: { content: string } }[];
    };
    expect(answer.choices[0]?.message.content).toContain('100');
    served.child.kill('SIGTERM');
    expect(await served.exit).toBe(0);
    expect(existsSync(readyFile)).toBe(false);
    expect(served.stdout()).toBe('');
    expect(served.stderr()).not.toContain('Error');
  });

  it('prints the ready line as JSON with --json, and exits with 130 after Ctrl-C', async () => {
    const served = await startServe(['--json', '--kv-cache-memory', '1MiB']);
    const { status, result } = JSON.parse(served.stdout()) as {
      status: number;
      result: { url: string; scheme: string; maxModelLen: number; modelMaxLen: number };
    };
    expect(status).toBe(0);
    expect(result.scheme).toBe('none');
    const { maxModelLen, modelMaxLen } = result;
    expect(maxModelLen).toBeLessThan(modelMaxLen);
    expect(served.stderr()).toContain(
      `The context is shortened to ${maxModelLen} of the model's ${modelMaxLen} tokens`,
    );
    expect((await fetch(`${result.url}/health`)).status).toBe(200);
    served.child.kill('SIGINT');
    expect(await served.exit).toBe(130);
    for (const line of served.stderr().trim().split('\n'))
      expect(() => JSON.parse(line) as unknown).not.toThrow();
  });

  it('takes the command line of FastDeploy with one line of warning', async () => {
    // An address of this process alone: on that of all others a port that is free now may be taken by the time it is needed.
    const host = `127.${1 + (process.pid % 254)}.${(process.pid >> 8) & 255}.${1 + Math.floor(process.pid / 65_536)}`;
    const metrics = '8181';
    const queues = ['--engine-worker-queue-port', '8182', '--cache-queue-port', '8183'];
    const limits = ['--tensor-parallel-size', '1', '--max-model-len', '2048', '--max-num-seqs', '8'];
    const flags = [
      ...queues,
      '--host',
      host,
      '--metrics-port',
      metrics,
      ...limits,
      '--quantization',
      'wint4',
    ];
    const served = await startServe(flags);
    expect(served.stderr().match(/^Warning: .*/gm)).toEqual([
      'Warning: --engine-worker-queue-port, --cache-queue-port: fdq runs in one process and needs no queue port; the value is not used.',
    ]);
    expect(served.stderr()).toMatch(/^Ready: .* \| wint4 \| .* \| 8 sequences \|/m);
    const answer = await fetch(`http://${host}:${metrics}/metrics`);
    expect(await answer.text()).toContain('vllm:num_requests_running');
  });

  it('gives the same answers after a restart with --seed and the defaults of a config file', async () => {
    const config = path.join(folder, 'fdq.yaml');
    const defaults = '{temperature: 1.5, max_new_tokens: 12}';
    await writeFile(
      config,
      `served-model-name: [alpha, beta]\nseed: 7\noverride-generation-config: ${defaults}\n`,
    );
    const ask = async (): Promise<unknown> => {
      const served = await startServe(['--config', config]);
      const url = /^Ready: (\S+)/m.exec(served.stderr())?.[1] ?? '';
      const body = { model: 'beta', messages: [{ role: 'user', content: 'Tell me something' }] };
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      const { model, choices, usage } = (await response.json()) as {
        model: string;
        choices: { message: { content: string } }[];
        usage: { completion_tokens: number };
      };
      served.child.kill('SIGTERM');
      await served.exit;
      expect(usage.completion_tokens).toBeLessThanOrEqual(12);
      return { model, text: choices[0]?.message.content };
    };
    const first = await ask();
    expect(first).toMatchObject({ model: 'beta', text: expect.stringMatching(/./) as string });
    expect(await ask()).toEqual(first);
  });

  it('fails before loading when the port is taken', async () => {
    const blocker = createServer().listen(0, '127.0.0.1');
    await once(blocker, 'listening');
    try {
      const { port } = blocker.address() as AddressInfo;
      const result = await runCli(['serve', DEMO, '--port', String(port)], { cwd: folder });
      expect({ code: result.code, stdout: result.stdout }).toEqual({ code: 1, stdout: '' });
      expect(result.stderr).toContain(`Code: port_in_use`);
      expect(result.stderr).toContain(String(port));
      expect(result.stderr).not.toContain('Warm up');
    } finally {
      blocker.close();
    }
  });

  it.each([
    [[path.join('no', 'such', 'folder', 'at', 'all')], 3, 'model_not_found'],
    [['org/absent', '--offline'], 3, 'offline'],
    [[DEMO, '-q', 'wint88'], 2, 'unknown_scheme'],
    [['org/absent', '--offline', '-q', 'wint88'], 2, 'unknown_scheme'],
    [['org/absent', '--offline', '--quantization-config', '{"ignroe": []}'], 2, 'invalid_config'],
    [['org/absent', '--offline', '--quantization-config.ignroe', 'lm_head'], 2, 'invalid_config'],
    [['org/absent', '--offline', '-q', 'W4A4'], 2, 'unknown_scheme'],
    [['org/absent', '--offline', '-q', 'W8A16C8', '--kv-cache-dtype', 'bfloat16'], 2, 'invalid_config'],
    [['org/absent', '--offline', '-q', 'wint2'], 2, 'unknown_scheme'],
    [['org/absent', '--offline', '--quantize-lm-head'], 2, 'invalid_config'],
    [[DEMO, '--quantization-config.moe', 'wint8'], 2, 'pattern_matches_nothing'],
    [[DEMO, '-q', 'wint8', '--quantization-config.targets.q_porj', 'wint4'], 2, 'pattern_matches_nothing'],
    [[path.join(ROOT, 'models', 'demoo')], 3, 'model_not_found'],
  ])('refuses %j with exit code %d', async (args, code, name) => {
    const env = { HF_HUB_CACHE: folder };
    const result = await runCli(['serve', ...args, '--port', '0'], { cwd: folder, env });
    expect(result.stderr).toContain(`Code: ${name}`);
    expect(result.stderr).not.toMatch(/^\s+at /m);
    expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' });
  });
});
