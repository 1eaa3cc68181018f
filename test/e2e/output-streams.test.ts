import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import process from 'node:process';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { BIN, CHILD_TIMEOUT_MS, ROOT, cleanEnvironment } from '../helpers/cli.js';

/** A stream of the command: read by the test, on a full device, or closed by its reader before anything is written. */
type Sink = 'read' | 'full' | 'closed';

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function runInto(args: readonly string[], sinks: { stdout?: Sink; stderr?: Sink }): Promise<Ended> {
  const device = openSync('/dev/full', 'w');
  const { stdout = 'read', stderr = 'read' } = sinks;
  const child = spawn(process.execPath, [BIN, ...args], {
    cwd: ROOT,
    env: cleanEnvironment(),
    stdio: ['ignore', stdout === 'full' ? device : 'pipe', stderr === 'full' ? device : 'pipe'],
    timeout: CHILD_TIMEOUT_MS,
  });
  closeSync(device);
  if (stdout === 'closed') child.stdout?.destroy();
  if (stderr === 'closed') child.stderr?.destroy();
  const read = (stream: typeof child.stdout, sink: Sink): Promise<string> =>
    stream === null || sink !== 'read' ? Promise.resolve('') : text(stream);
  const [out, err, [code]] = await Promise.all([
    read(child.stdout, stdout),
    read(child.stderr, stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return { code, stdout: out, stderr: err };
}

const FULL = `Error: Cannot write to the standard output: no space is left on the device (ENOSPC).
Code: write_failed
Try: Free some space, or send the output elsewhere.
`;

describe.concurrent('a standard output that cannot be written', () => {
  it.each([
    [['version'], 1],
    [['version', '--json'], 1],
    [['--version'], 1],
    [['--help'], 1],
    [['serve', '--help'], 1],
    [['serve', 'm', '--print-config'], 1],
    [['inspect', 'models/demo'], 1],
    // What they found wrong keeps its exit code.
    [['serve', '--bad', '--json'], 2],
    [['nope', '--json'], 127],
    [['inspect', 'models/demo', '--fail-if', 'bits>1', '--json'], 4],
  ])('%j is one error', async (args, code) => {
    const ended = await runInto(args, { stdout: 'full' });
    expect(ended.stderr.slice(ended.stderr.indexOf('Error: Cannot'))).toBe(FULL);
    expect(ended.stderr).not.toMatch(/^\s+at /m);
    expect(ended.code).toBe(code);
  });

  it.each([
    [['version'], 0],
    [['serve', '--help'], 0],
    [['inspect', 'models/demo', '--json'], 0],
    [['serve', '--bad', '--json'], 2],
  ])('%j says nothing of a reader that left', async (args, code) => {
    expect(await runInto(args, { stdout: 'closed' })).toEqual({ code, stdout: '', stderr: '' });
  });
});

describe.concurrent('a standard error that cannot be written', () => {
  it.each(['full', 'closed'] as const)('ends no measurement (%s)', async (stderr) => {
    const args = ['bench', 'models/demo', '-p', '16', '-n', '0', '-r', '1', '-t', '1', '--json'];
    const { code, stdout } = await runInto(args, { stderr });
    expect(JSON.parse(stdout)).toMatchObject({ status: 0, result: { kind: 'speed' } });
    expect(code).toBe(0);
  });

  it('keeps the exit code of an error that nobody reads', async () => {
    expect((await runInto(['serve', '--bad'], { stderr: 'full' })).code).toBe(2);
  });
});
