import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { describe, expect, it, onTestFinished } from 'vitest';
import { BIN, cleanEnvironment, ROOT } from '../helpers/cli.js';
import { eventually } from '../helpers/eventually.js';
import { startHubServer, type Fault, type HubServer } from '../helpers/hub-server.js';
import { createTempDir } from '../helpers/temp-dir.js';

const DEMO = path.join(ROOT, 'models', 'demo');
const ID = 'org/demo';
const WEIGHTS = 'model.safetensors';

interface Hub {
  readonly server: HubServer;
  readonly home: string;
  serve(reference: string): Started;
  /** Size of the files that end in `.incomplete`. */
  partialBytes(): Promise<number>;
  /** Whether refs/<revision> was written, which says that a download is complete. */
  hasRef(revision: string): Promise<boolean>;
}

interface Started {
  readonly child: ChildProcess;
  readonly exit: Promise<number>;
  readonly stderr: () => string;
  /** Settles when stderr has the text; rejects when the process ends without it. */
  said(pattern: RegExp): Promise<string>;
}

function start(reference: string, env: Readonly<Record<string, string>>): Started {
  const child = spawn(process.execPath, [BIN, 'serve', reference, '--port', '0'], {
    cwd: env['HF_HOME'],
    env: cleanEnvironment(env),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const exit = once(child, 'close').then(([code]) => code as number);
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const said = async (pattern: RegExp): Promise<string> => {
    const ended = exit.then((code) => {
      throw new Error(`ended with ${code} before it said ${pattern}: ${stderr}`);
    });
    ended.catch(() => undefined);
    for (;;) {
      const found = pattern.exec(stderr);
      if (found !== null) return found[1] ?? found[0];
      await Promise.race([once(child.stderr, 'data'), ended]);
    }
  };
  return { child, exit, stderr: () => stderr, said };
}

async function startHub(faults: readonly Fault[] = []): Promise<Hub> {
  const [source, home] = await Promise.all([createTempDir(), createTempDir()]);
  const names = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', WEIGHTS];
  await Promise.all(names.map((name) => copyFile(path.join(DEMO, name), path.join(source, name))));
  const server = await startHubServer({ models: { [ID]: { main: source, v2: source } }, faults });
  let isClosed = false;
  const close = async (): Promise<void> => {
    if (!isClosed) await server.close();
    isClosed = true;
  };
  onTestFinished(close);
  const repo = path.join(home, 'hub', 'models--org--demo');
  return {
    server: { ...server, close },
    home,
    serve: (reference) => start(reference, { HF_HOME: home, HF_ENDPOINT: server.url }),
    partialBytes: async () => {
      const names = await readdir(path.join(repo, 'blobs')).catch(() => [] as string[]);
      const partial = names.filter((name) => name.endsWith('.incomplete'));
      const sizes = partial.map(async (name) => (await stat(path.join(repo, 'blobs', name))).size);
      return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    },
    hasRef: async (revision) =>
      (await readdir(path.join(repo, 'refs')).catch(() => [] as string[])).includes(revision),
  };
}

async function answers(url: string): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ messages: [{ role: 'user', content: 'What is 15 plus 85?' }], temperature: 0 }),
  });
  const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
  return choices[0]?.message.content ?? '';
}

describe('fdq serve org/name', () => {
  it('downloads a revision, serves it, and starts from the cache when the hub is gone', async () => {
    const hub = await startHub();
    const first = hub.serve(`${ID}@v2`);
    const text = await answers(await first.said(/^Ready: (\S+) \| demo \|/m));
    expect(text).toContain('100');
    first.child.kill('SIGTERM');
    expect(await first.exit).toBe(0);
    expect(await hub.hasRef('v2')).toBe(true);
    expect(await hub.partialBytes()).toBe(0);

    await hub.server.close();
    const second = hub.serve(`${ID}@v2`);
    expect(await answers(await second.said(/^Ready: (\S+)/m))).toBe(text);
    second.child.kill('SIGTERM');
    expect(await second.exit).toBe(0);
  });

  it('exits with 130 on Ctrl-C, leaves a partial file only, and goes on from it', async () => {
    const kept = 3_000_000;
    const hub = await startHub([{ match: WEIGHTS, hangAfter: kept, times: 1 }]);
    const first = hub.serve(ID);
    await eventually(async () => expect(await hub.partialBytes()).toBe(kept));
    first.child.kill('SIGINT');
    expect(await first.exit).toBe(130);
    expect(first.stderr()).not.toMatch(/Error|^\s+at /m);
    expect(await hub.hasRef('main')).toBe(false);
    expect(await hub.partialBytes()).toBe(kept);

    const second = hub.serve(ID);
    await second.said(/^Ready: (\S+)/m);
    const cdn = hub.server.requests.filter(
      ({ server, path: url }) => server === 'cdn' && url.endsWith(WEIGHTS),
    );
    expect(cdn.map(({ range }) => range)).toEqual([undefined, `bytes=${kept}-`]);
    expect(await hub.partialBytes()).toBe(0);
    second.child.kill('SIGTERM');
    expect(await second.exit).toBe(0);
  });
});
