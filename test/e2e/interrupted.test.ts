import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BIN, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { answerModels, fakeOpenAi } from '../helpers/fake-openai.js';
import { writeLargeCheckpoint } from '../helpers/large-checkpoint.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
/** Of a process that ends itself, as docs/cli.md says. */
const CODES = { SIGINT: 130, SIGTERM: 143 } as const;

interface Command {
  readonly args: readonly string[];
  /** When it is to be told to end: a line that it prints, or something that became true of the process. */
  readonly when: RegExp | ((pid: number) => boolean);
}

interface Started {
  readonly child: ChildProcess;
  readonly output: () => { readonly stdout: string; readonly stderr: string };
  readonly exit: Promise<readonly [code: number | null, signal: string | null]>;
}

/** Runs a command in a folder for temporary files of its own until it is told to end. */
async function interrupt({ args, when }: Command, signal: (typeof SIGNALS)[number]) {
  const temporary = path.join(await createTempDir(), 'tmp');
  await mkdir(temporary);
  const { child, exit, output } = start(args, temporary);
  const isDue = typeof when === 'function' ? when : (): boolean => when.test(output().stderr);
  while (!isDue(child.pid ?? 0)) {
    if (child.exitCode !== null) throw new Error(`it ended: ${output().stderr}`);
    await setImmediate();
  }
  child.kill(signal);
  const [code, by] = await exit;
  expect(readdirSync(temporary)).toEqual([]);
  return { code, by, ...output() };
}

function start(args: readonly string[], temporary: string): Started {
  const child = spawn(process.execPath, [BIN, ...args], {
    env: cleanEnvironment({ TMPDIR: temporary }),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const texts = { stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => (texts.stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (texts.stderr += chunk.toString()));
  const exit = once(child, 'close') as Promise<[number | null, string | null]>;
  return { child, exit, output: () => texts };
}

/** Whether it has started the process that measures, or the server. */
function hasChild(pid: number): boolean {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim() !== '';
}

const isPartial = (folder: string) => (): boolean =>
  readdirSync(folder).some((name) => name.includes('partial'));

const SMALL = ['-p', '0', '-n', '4', '-t', '1'];
const OTHER_BUILD = ['--fail-if', 'decode < -5%', '--baseline-command', `${process.execPath} ${BIN}`];
const LOAD = ['--random-input-len', '8', '--random-output-len', '4', '--num-prompts', '2'];

describe.each(SIGNALS)('%s', (signal) => {
  const code = CODES[signal];

  it.each<readonly [what: string, args: readonly string[]]>([
    ['bench', ['bench', DEMO, ...SMALL]],
    ['bench beside another build', ['bench', DEMO, ...SMALL, ...OTHER_BUILD]],
    ['bench serve', ['bench', 'serve', '-m', DEMO, '--no-cache', ...LOAD]],
  ])('ends %s with its code, and leaves nothing', async (_what, args) => {
    const ended = await interrupt({ args: [...args, '--json'], when: hasChild }, signal);
    expect(ended, ended.stderr).toMatchObject({ code });
    expect(JSON.parse(ended.stdout)).toMatchObject({ status: code, error: { code: 'aborted' } });
  });

  it('ends bench serve while it waits for a server', async () => {
    const server = await fakeOpenAi({ '/v1/models': answerModels, '/v1/completions': () => undefined });
    const isAsked = (): boolean => server.calls.some(({ request }) => request.url === '/v1/completions');
    const args = ['bench', 'serve', '--url', server.url.href, ...LOAD, '--json'];
    const ended = await interrupt({ args, when: isAsked }, signal);
    expect(ended, ended.stderr).toMatchObject({ code });
    expect(JSON.parse(ended.stdout)).toMatchObject({
      status: code,
      error: { code: 'aborted', message: `Interrupted by ${signal}.` },
    });
  });

  it('ends bench quality with its code, and leaves no part of a file', async () => {
    const folder = await createTempDir();
    const logits = ['--reference-logits', path.join(folder, 'logits')];
    const args = ['bench', 'quality', DEMO, '-q', 'wint8', ...logits, '--json'];
    const ended = await interrupt({ args, when: isPartial(folder) }, signal);
    expect(ended, ended.stderr).toMatchObject({ code });
    expect(JSON.parse(ended.stdout)).toMatchObject({ status: code, result: { partial: true } });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('ends convert with its code, and leaves no part of a folder', async () => {
    const folder = await createTempDir();
    writeLargeCheckpoint(path.join(folder, 'model'), 8);
    const output = ['-o', path.join(folder, 'out'), '--json'];
    const args = ['convert', path.join(folder, 'model'), '-q', 'wint4:g32:mse', ...output];
    const ended = await interrupt({ args, when: isPartial(folder) }, signal);
    expect(ended, ended.stderr).toMatchObject({ code });
    expect(JSON.parse(ended.stdout)).toMatchObject({ status: code, error: { code: 'aborted' } });
    expect(readdirSync(folder)).toEqual(['model']);
  });

  it('ends inspect on the spot, which has nothing to put away', async () => {
    const folder = await createTempDir();
    writeLargeCheckpoint(path.join(folder, 'model'), 8);
    const page = ['--html', path.join(folder, 'page.html')];
    const args = ['inspect', path.join(folder, 'model'), '-q', 'wint4:g32:mse', '--measure', ...page];
    const ended = await interrupt({ args, when: /^Locate model: /m }, signal);
    expect(ended).toMatchObject({ code: null, by: signal, stdout: '' });
    expect(readdirSync(folder)).toEqual(['model']);
  });

  it('ends serve, which is success where a service manager asks for it', async () => {
    const expected = { SIGINT: 130, SIGTERM: 0 }[signal];
    const args = ['serve', DEMO, '-q', 'wint8', '--port', '0', '--no-cache'];
    expect(await interrupt({ args, when: /^Ready: /m }, signal)).toMatchObject({ code: expected });
  });

  it('ends bench --rounds-from-stdin', async () => {
    const args = ['bench', DEMO, ...SMALL, '--rounds-from-stdin'];
    const { child, exit, output } = start(args, await createTempDir());
    while (!output().stdout.includes('"ready":true')) await once(child.stdout!, 'data');
    child.kill(signal);
    expect((await exit)[0], output().stderr).toBe(code);
  });
});
