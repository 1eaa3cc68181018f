import {
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/errors.js';
import { openCheckpoint } from '../../../src/hub/checkpoint.js';
import { createHubClient, TransientHubError } from '../../../src/hub/hub-client.js';
import type { HubClient } from '../../../src/hub/hub-client.js';
import { readHubSettings } from '../../../src/hub/hub-environment.js';
import { explainTransferFailure } from '../../../src/hub/transfer.js';
import type { RemoteFile } from '../../../src/hub/transfer.js';
import type { DownloadProgress } from '../../../src/hub/download.js';
import { catchError } from './catch-error.js';
import { ID, readSnapshot, startFixture, WEIGHT_BYTES } from './hub-fixture.js';
import type { HubFixture } from './hub-fixture.js';

const WEIGHTS = 'model.safetensors';
const CUT_AFTER = 150_000;
const SERVED = [
  'chat_template.jinja',
  'config.json',
  'generation_config.json',
  WEIGHTS,
  'tokenizer.json',
  'tokenizer_config.json',
];

async function hashWeights({ source }: HubFixture): Promise<string> {
  return createHash('sha256')
    .update(await readFile(join(source, WEIGHTS)))
    .digest('hex');
}

/** Bytes of the weights that each request got. */
function getWeightTransfers({ server }: HubFixture): readonly (readonly [string | undefined, number])[] {
  return server.requests
    .filter((request) => request.server === 'cdn' && request.path.includes(WEIGHTS))
    .map(({ range, bytesSent }) => [range, bytesSent]);
}

function createTransfer(): { client: HubClient; file: RemoteFile; signal: AbortSignal } {
  const { signal } = new AbortController();
  const repo = { id: ID, revision: 'main' };
  const client = createHubClient(repo, readHubSettings({}), undefined, signal);
  return { client, file: { name: 'f', size: 1, etag: 'a'.repeat(40), url: 'http://127.0.0.1/f' }, signal };
}

describe('a download', () => {
  it('fills the cache as huggingface_hub does', async () => {
    const fixture = await startFixture();
    const located = await fixture.locate();
    const repo = join(fixture.cacheDir, 'models--org--tiny');
    const commit = fixture.server.getCommit(ID);
    expect(located).toEqual({
      dir: join(repo, 'snapshots', commit),
      reference: ID,
      revision: commit,
      source: 'download',
    });
    expect(await readFile(join(repo, 'refs', 'main'), 'utf8')).toBe(commit);
    expect(await readlink(join(located.dir, WEIGHTS))).toBe(`../../blobs/${await hashWeights(fixture)}`);
    expect((await lstat(join(repo, 'blobs', await hashWeights(fixture)))).isFile()).toBe(true);
    expect(Object.keys(await readSnapshot(located.dir))).toEqual(SERVED);
    for (const [name, bytes] of Object.entries(await readSnapshot(located.dir))) {
      expect(bytes.equals(await readFile(join(fixture.source, name)))).toBe(true);
    }
    expect((await fixture.listCache()).blobs.filter((name) => !/^[0-9a-f]{40,64}$/.test(name))).toEqual([]);
    await expect(openCheckpoint(located)).resolves.toMatchObject({ revision: commit, warnings: [] });
  });

  it('is not repeated', async () => {
    const fixture = await startFixture();
    await fixture.locate();
    const count = fixture.server.requests.length;
    expect((await fixture.locate()).source).toBe('cache');
    expect(fixture.server.requests.length).toBe(count);
  });

  it('takes a tag or a commit', async () => {
    const fixture = await startFixture();
    const commit = fixture.server.getCommit(ID);
    expect((await fixture.locate({ revision: commit })).revision).toBe(commit);
    expect(await readdir(join(fixture.cacheDir, 'models--org--tiny'))).not.toContain('refs');
  });

  it('fetches nothing that serving does not need', async () => {
    const files = {
      'README.md': 'x',
      LICENSE: 'x',
      'pytorch_model.bin': 'x',
      'modeling.py': 'x',
      'consolidated.safetensors': 'x',
      'adapter_model.safetensors': 'x',
      'training_args.bin': 'x',
    };
    const fixture = await startFixture({ files });
    expect(Object.keys(await readSnapshot((await fixture.locate()).dir))).toEqual(SERVED);
    expect(
      fixture.server.requests.filter(({ path }) => Object.keys(files).some((name) => path.includes(name))),
    ).toEqual([]);
  });

  it('fetches the shards that the index names', async () => {
    const fixture = await startFixture({ isSharded: true, files: { 'model-3.safetensors': 'x' } });
    const located = await fixture.locate();
    const { tensors } = await openCheckpoint(located);
    expect([...tensors.keys()]).toEqual(['a', 'b']);
    expect(await readdir(located.dir)).not.toContain('model-3.safetensors');
  });

  it('reports progress over all files', async () => {
    const { locate, source } = await startFixture({ isSharded: true });
    const reports: DownloadProgress[] = [];
    await locate({ onProgress: (progress) => reports.push(progress) });
    const sizes = await Promise.all(
      (await readdir(source)).map(async (name) => (await stat(join(source, name))).size),
    );
    const bytesTotal = sizes.reduce((sum, size) => sum + size, 0);
    expect(reports.at(-1)).toMatchObject({ bytesDone: bytesTotal, bytesTotal, filesDone: 8, filesTotal: 8 });
    expect(new Set(reports.map(({ file }) => file))).toEqual(
      new Set(['model-1.safetensors', 'model-2.safetensors']),
    );
    for (const [i, report] of reports.entries()) {
      expect(report.bytesDone).toBeGreaterThanOrEqual(reports[i - 1]?.bytesDone ?? 0);
      expect(report.bytesTotal).toBe(bytesTotal);
    }
  });

  it('completes a snapshot of which files are missing', async () => {
    const fixture = await startFixture();
    const { dir } = await fixture.locate();
    await rm(join(dir, 'config.json'));
    expect((await fixture.locate()).source).toBe('download');
    expect(getWeightTransfers(fixture)).toHaveLength(1);
    expect(Object.keys(await readSnapshot(dir))).toEqual(SERVED);
  });

  it('replaces a link that leads nowhere and a blob of the wrong size', async () => {
    const fixture = await startFixture();
    const { dir } = await fixture.locate();
    await rm(join(dir, 'config.json'));
    await symlink('nowhere', join(dir, 'config.json'));
    await truncate(join(dir, WEIGHTS), 10);
    await fixture.locate();
    expect((await readSnapshot(dir))[WEIGHTS]?.equals(await readFile(join(fixture.source, WEIGHTS)))).toBe(
      true,
    );
  });
});

describe('an interrupted download', () => {
  it('is continued by the next call, which fetches the rest only', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, cutAfter: CUT_AFTER, times: 1 }] });
    const error = await catchError(fixture.locate());
    expect(error).toMatchObject({ code: 'download_failed', exitCode: 3 });
    const partial = `${await hashWeights(fixture)}.incomplete`;
    const { blobs, snapshot } = await fixture.listCache();
    expect(blobs.filter((name) => name.endsWith('.incomplete'))).toEqual([partial]);
    expect(blobs.filter((name) => name.endsWith('.lock'))).toEqual([]);
    expect(snapshot).not.toContain(WEIGHTS);
    expect(await readdir(join(fixture.cacheDir, 'models--org--tiny'))).not.toContain('refs');
    const { size: have } = await stat(join(fixture.cacheDir, 'models--org--tiny', 'blobs', partial));
    expect(have).toBe(CUT_AFTER);

    const offline = await catchError(fixture.locate({ offline: true }));
    expect(offline.code).toBe('offline');

    const reports: DownloadProgress[] = [];
    const { dir } = await fixture.locate({ onProgress: (progress) => reports.push(progress) });
    const { size } = await stat(join(fixture.source, WEIGHTS));
    expect(getWeightTransfers(fixture)).toEqual([
      [undefined, CUT_AFTER],
      [`bytes=${CUT_AFTER}-`, size - CUT_AFTER],
    ]);
    expect((await readSnapshot(dir))[WEIGHTS]?.equals(await readFile(join(fixture.source, WEIGHTS)))).toBe(
      true,
    );
    expect(reports.at(-1)?.bytesDone).toBe(reports.at(-1)?.bytesTotal);
    expect((await fixture.listCache()).blobs.filter((name) => name.endsWith('.incomplete'))).toEqual([]);
  });

  it('goes on by itself while bytes arrive', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, cutAfter: CUT_AFTER, times: 2 }] });
    await fixture.locate({ retry: { attempts: 1, delayMs: 0 } });
    expect(getWeightTransfers(fixture).map(([range]) => range)).toEqual([
      undefined,
      `bytes=${CUT_AFTER}-`,
      `bytes=${2 * CUT_AFTER}-`,
    ]);
  });

  it('starts over when the server ignores the range', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, cutAfter: CUT_AFTER, times: 1 }] });
    await catchError(fixture.locate());
    fixture.server.faults.push({ match: WEIGHTS, ignoresRange: true });
    const { dir } = await fixture.locate();
    expect((await readSnapshot(dir))[WEIGHTS]?.equals(await readFile(join(fixture.source, WEIGHTS)))).toBe(
      true,
    );
  });

  it.each(['longer than the file', 'of other bytes'])('starts over from a partial file %s', async (kind) => {
    const fixture = await startFixture();
    const blobs = join(fixture.cacheDir, 'models--org--tiny', 'blobs');
    await mkdir(blobs, { recursive: true });
    const size = kind === 'of other bytes' ? 1000 : WEIGHT_BYTES * 2;
    await writeFile(join(blobs, `${await hashWeights(fixture)}.incomplete`), Buffer.alloc(size, 'z'));
    const { dir } = await fixture.locate({ retry: { attempts: 1, delayMs: 0 } });
    expect((await readSnapshot(dir))[WEIGHTS]?.equals(await readFile(join(fixture.source, WEIGHTS)))).toBe(
      true,
    );
  });

  it('is stopped by a signal, and continued later', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, hangAfter: CUT_AFTER, times: 1 }] });
    const controller = new AbortController();
    const error = await catchError(
      fixture.locate({
        signal: controller.signal,
        onProgress: ({ file }) => file === WEIGHTS && controller.abort(),
      }),
    );
    expect(error).toMatchObject({ code: 'aborted', exitCode: 130 });
    const { blobs, snapshot } = await fixture.listCache();
    expect(blobs).toContain(`${await hashWeights(fixture)}.incomplete`);
    expect(snapshot).not.toContain(WEIGHTS);
    await fixture.locate();
    expect(getWeightTransfers(fixture)[1]?.[0]).toMatch(/^bytes=[1-9]\d*-$/);
  });

  it('does not begin when the signal has fired already', async () => {
    const fixture = await startFixture();
    expect((await catchError(fixture.locate({ signal: AbortSignal.abort() }))).code).toBe('aborted');
    expect(await fixture.listCache()).toEqual({ blobs: [], snapshot: [] });
  });

  it('fails when nothing arrives any more', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, hangAfter: CUT_AFTER }] });
    fixture.env['HF_HUB_DOWNLOAD_TIMEOUT'] = '0.1';
    const error = await catchError(fixture.locate());
    expect(error.code).toBe('download_failed');
    expect(error.message).toMatch(/nothing arrived for 0\.1 s/);
  });
});

describe('one file that fails', () => {
  it('stops the others, which are continued later', async () => {
    const faults = [
      { match: 'model-1', hangAfter: CUT_AFTER, times: 1 },
      { match: 'model-2', cutAfter: CUT_AFTER, times: 1 },
    ];
    const fixture = await startFixture({ isSharded: true, faults });
    // Without being stopped, the file that hangs would outlast the test.
    fixture.env['HF_HUB_DOWNLOAD_TIMEOUT'] = '1000';
    expect((await catchError(fixture.locate())).code).toBe('download_failed');
    expect((await fixture.listCache()).blobs.filter((name) => name.endsWith('.lock'))).toEqual([]);
    expect((await fixture.locate()).source).toBe('download');
  });
});

describe('bytes that are wrong', () => {
  it('are dropped and fetched again', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, corrupts: true, times: 1 }] });
    const { dir } = await fixture.locate({ retry: { attempts: 1, delayMs: 0 } });
    expect((await readSnapshot(dir))[WEIGHTS]?.equals(await readFile(join(fixture.source, WEIGHTS)))).toBe(
      true,
    );
  });

  it.each([WEIGHTS, 'config.json'])('are refused for good when they stay wrong: %s', async (name) => {
    const fixture = await startFixture({ faults: [{ match: name, corrupts: true }] });
    const error = await catchError(fixture.locate({ retry: { attempts: 1, delayMs: 0 } }));
    expect(error.code).toBe('download_failed');
    expect(error.message).toMatch(/arrived damaged/);
    expect(error.message).toContain(name);
    const { blobs, snapshot } = await fixture.listCache();
    expect(snapshot).not.toContain(name);
    expect(blobs.filter((blob) => blob.endsWith('.incomplete'))).toEqual([]);
  });

  it('are kept when they are too few: the rest may come later', async () => {
    const fixture = await startFixture({ faults: [{ match: 'resolve/', body: '{' }] });
    expect((await catchError(fixture.locate())).message).toMatch(/\.jinja ended early|\.json ended early/);
  });

  it('are refused when a file is longer than listed', async () => {
    const fixture = await startFixture({ faults: [{ match: `tree:${WEIGHTS}`, claimedSize: 1000 }] });
    expect((await catchError(fixture.locate())).message).toMatch(/longer than announced/);
    expect((await fixture.listCache()).snapshot).not.toContain(WEIGHTS);
  });
});

describe('the token', () => {
  const token = 'hf_c4n4ry';

  it('goes to the hub and not to the server that keeps the files', async () => {
    const fixture = await startFixture({ token });
    fixture.env['HF_TOKEN'] = token;
    await fixture.locate();
    const sent = (server: string): readonly unknown[] =>
      fixture.server.requests
        .filter((request) => request.server === server)
        .map(({ authorization }) => authorization);
    expect(new Set(sent('hub'))).toEqual(new Set([`Bearer ${token}`]));
    expect(new Set(sent('cdn'))).toEqual(new Set([undefined]));
  });

  it('does not follow a listing to another origin', async () => {
    const fixture = await startFixture({ token, faults: [{ match: 'tree:next', leadsAway: true }] });
    fixture.env['HF_TOKEN'] = token;
    await catchError(fixture.locate());
    const away = fixture.server.requests.filter((request) => request.server === 'cdn');
    expect(away.map(({ path, authorization }) => [path.includes('/tree/'), authorization])).toEqual([
      [true, undefined],
    ]);
  });

  it('is not sent when implicit tokens are disabled', async () => {
    const fixture = await startFixture({ token });
    Object.assign(fixture.env, { HF_TOKEN: token, HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' });
    const error = await catchError(fixture.locate());
    expect(error).toMatchObject({ code: 'model_not_found' });
    expect(error.message).toMatch(/does not exist .* or is private \(HTTP 401\)/);
    expect(error.suggestions.join()).toContain('HF_TOKEN');
  });

  it('never appears in an error', async () => {
    for (const fault of [
      { status: 401 },
      { status: 403 },
      { status: 500 },
      { body: token },
      { cutAfter: 10 },
    ]) {
      const fixture = await startFixture({ faults: [{ match: '/', ...fault }] });
      fixture.env['HF_TOKEN'] = token;
      let error: unknown = await catchError(fixture.locate());
      for (; error instanceof Error; error = error.cause) {
        expect(JSON.stringify([error.message, error.stack, Object.entries(error)])).not.toContain('c4n4ry');
      }
    }
  });
});

describe('answers of the hub', () => {
  it.each<[string, { status: number; errorCode?: string }, string, RegExp, RegExp]>([
    ['401 with a token', { status: 401 }, 'download_failed', /rejected the access token/, /valid token/],
    [
      '403',
      { status: 403 },
      'download_failed',
      /org\/tiny is gated \(HTTP 403\)/,
      /Accept the conditions at http.*HF_TOKEN/,
    ],
    [
      '401 gated',
      { status: 401, errorCode: 'GatedRepo' },
      'download_failed',
      /is gated/,
      /Accept the conditions/,
    ],
    [
      '404',
      { status: 404, errorCode: 'RepoNotFound' },
      'model_not_found',
      /org\/tiny does not exist/,
      /spelling/,
    ],
    [
      '404 of a revision',
      { status: 404, errorCode: 'RevisionNotFound' },
      'model_not_found',
      /no revision main/,
      /branches/,
    ],
    ['429', { status: 429 }, 'download_failed', /HTTP 429/, /Wait a few minutes/],
    ['500', { status: 500 }, 'download_failed', /HTTP 500/, /again later/],
    ['503', { status: 503 }, 'download_failed', /HTTP 503/, /again later/],
    ['418', { status: 418 }, 'download_failed', /HTTP 418/, /again later/],
  ])('%s', async (...[, fault, code, message, suggestion]) => {
    const fixture = await startFixture({ faults: [{ match: '/api/', ...fault }] });
    fixture.env['HF_TOKEN'] = 'hf_x';
    const error = await catchError(fixture.locate());
    expect(error).toMatchObject({ code, exitCode: 3 });
    expect(error.message).toMatch(message);
    expect(error.suggestions.join('\n')).toMatch(suggestion);
    expect(await fixture.listCache()).toEqual({ blobs: [], snapshot: [] });
  });

  it('403 for a file of an open listing', async () => {
    const fixture = await startFixture({
      faults: [{ match: `resolve/`, status: 403, errorCode: 'GatedRepo' }],
    });
    expect((await catchError(fixture.locate())).message).toMatch(/is gated/);
    expect(await fixture.listCache()).toMatchObject({ blobs: [], snapshot: [] });
  });

  it('5xx are tried again', async () => {
    const fixture = await startFixture({
      faults: [
        { match: '/revision/', status: 503, times: 2 },
        { match: '/tree/', status: 500, times: 2 },
        { match: WEIGHTS, status: 502, times: 2 },
      ],
    });
    expect((await fixture.locate({ retry: { attempts: 2, delayMs: 0 } })).source).toBe('download');
  });

  it.each(['<html>hello</html>', '{}', '{"sha":"../../x"}', '[1]'])(
    'that make no sense: %s',
    async (body) => {
      const fixture = await startFixture({ faults: [{ match: '/revision/', body }] });
      const error = await catchError(fixture.locate());
      expect(error.message).toMatch(/makes no sense/);
      expect(error.suggestions.join()).toContain('HF_ENDPOINT');
    },
  );

  it.each([
    '{}',
    '[{"type":"file","path":"config.json","oid":"../../../x","size":1}]',
    '[{"type":"file","path":"config.json","oid":"","size":1}]',
    `[{"type":"file","path":"config.json","oid":"${'a'.repeat(40)}","size":-1}]`,
    `[{"type":"file","path":"config.json","oid":"${'a'.repeat(40)}","size":1e300}]`,
  ])('with a listing that makes no sense: %s', async (body) => {
    const fixture = await startFixture({ faults: [{ match: '/tree/', body }] });
    expect((await catchError(fixture.locate())).message).toMatch(/makes no sense/);
  });

  it('with names that would leave the folder: they are never fetched', async () => {
    const entries = [
      '../config.json',
      '/tmp/config.json',
      'a/model.safetensors',
      '..\\model.safetensors',
    ].map((path) => ({
      type: 'file',
      path,
      oid: 'a'.repeat(40),
      size: 1,
    }));
    const fixture = await startFixture({ faults: [{ match: '/tree/', body: JSON.stringify(entries) }] });
    await catchError(fixture.locate());
    expect(fixture.server.requests.filter(({ path }) => path.includes('resolve'))).toEqual([]);
  });

  it('that never come', async () => {
    const fixture = await startFixture();
    await fixture.server.close();
    // Waits a minute before a second try, which must not be made.
    const error = await catchError(fixture.locate({ retry: { attempts: 5, delayMs: 60_000 } }));
    expect(error.code).toBe('download_failed');
    expect(error.suggestions[0]).toContain('huggingface-cli download org/tiny');
    expect(error.message).toMatch(/connection to http:\/\/127\.0\.0\.1:\d+ failed: .*ECONNREFUSED/);
  });
});

describe('before the weights', () => {
  it.each<[string, Record<string, string>, string, RegExp]>([
    [
      'a model quantized in a way that is not loaded',
      { 'config.json': '{"quantization_config":{"quant_method":"hqq"}}' },
      'unsupported_model',
      /"hqq"/,
    ],
    ['a broken config', { 'config.json': '{' }, 'invalid_checkpoint', /config\.json/],
  ])('refuses %s', async (_, files, code, message) => {
    const fixture = await startFixture({ files });
    const error = await catchError(fixture.locate());
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(getWeightTransfers(fixture)).toEqual([]);
  });

  it('refuses a config its caller cannot serve', async () => {
    const fixture = await startFixture();
    const refusal = new UserError('unsupported_architecture', 'No such architecture.', {
      param: 'architectures',
      suggestions: ['Give another model.'],
    });
    let seen: unknown;
    const checkConfig = (config: Readonly<Record<string, unknown>>): Promise<void> => {
      seen = config;
      return Promise.reject(refusal);
    };
    expect(await catchError(fixture.locate({ checkConfig }))).toBe(refusal);
    expect(seen).toEqual(JSON.parse(await readFile(join(fixture.source, 'config.json'), 'utf8')));
    expect(getWeightTransfers(fixture)).toEqual([]);
  });

  it.each<[string, string, RegExp]>([
    ['model-Q4.gguf', 'unsupported_model', /"org\/tiny" are model-Q4\.gguf.*safetensors/],
    ['README.md', 'invalid_checkpoint', /in "org\/tiny" but found neither/],
  ])('refuses a repository with only %s', async (name, code, message) => {
    const fixture = await startFixture({
      faults: [
        {
          match: '/tree/',
          body: JSON.stringify([{ type: 'file', path: name, oid: 'a'.repeat(40), size: 1 }]),
        },
      ],
    });
    const error = await catchError(fixture.locate());
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  it('compares the size with the space on the disk', async () => {
    const fixture = await startFixture({ faults: [{ match: `tree:${WEIGHTS}`, claimedSize: 2 ** 52 }] });
    const error = await catchError(fixture.locate());
    expect(error.code).toBe('download_failed');
    expect(error.message).toMatch(/disk .* is full: no room for 4194304\.0 GiB \(\d+\.\d GiB free in/);
    expect(error.suggestions.join()).toContain('HF_HUB_CACHE');
    expect(getWeightTransfers(fixture)).toEqual([]);
  });

  it('names a disk that fills up while it is written to', async () => {
    const full = await open('/dev/full', 'w');
    const cause = await full.write(Buffer.alloc(1)).catch((error: unknown) => error);
    await full.close();
    const { client, file, signal } = createTransfer();
    const error = explainTransferFailure(cause, file, { client, signal });
    expect(error).toMatchObject({ code: 'download_failed', cause });
    expect(error.message).toMatch(/disk .* is full: no room for f/);
    expect(error).not.toBeInstanceOf(TransientHubError);
  });

  it('says when the cache cannot be written', async () => {
    const fixture = await startFixture();
    await writeFile(fixture.cacheDir, 'a file where the folder should be');
    const error = await catchError(fixture.locate());
    expect(error.message).toMatch(/Cannot write to the Hugging Face cache/);
    expect(error.suggestions.join()).toContain('HF_HUB_CACHE');
  });
});

describe('two downloads at the same time', () => {
  it('both succeed', async () => {
    const fixture = await startFixture({ isSharded: true });
    const located = await Promise.all([fixture.locate(), fixture.locate(), fixture.locate()]);
    for (const { dir } of located)
      await expect(openCheckpoint({ reference: ID, dir })).resolves.toBeDefined();
    expect((await fixture.listCache()).blobs.filter((name) => !/^[0-9a-f]{40,64}$/.test(name))).toEqual([]);
  });

  it.each([
    ['a process that has died', `${hostname()} 999999999`, true],
    ['this process id, from before a restart', `${hostname()} ${process.pid}`, true],
    ['a live process', `${hostname()} ${process.ppid}`, false],
    ['another machine', 'elsewhere 1', false],
  ])('with the lock of %s', async (_, holder, isResumed) => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, cutAfter: CUT_AFTER, times: 1 }] });
    await catchError(fixture.locate());
    const blob = join(fixture.cacheDir, 'models--org--tiny', 'blobs', await hashWeights(fixture));
    await writeFile(`${blob}.lock`, holder);
    await fixture.locate();
    expect(getWeightTransfers(fixture)[1]?.[0]).toBe(isResumed ? `bytes=${CUT_AFTER}-` : undefined);
    // Somebody else's partial file is left alone.
    const { blobs } = await fixture.listCache();
    expect(blobs.includes(`${basename(blob)}.incomplete`)).toBe(!isResumed);
    expect(blobs).toContain(basename(blob));
  });

  it('with an old lock of another machine', async () => {
    const fixture = await startFixture({ faults: [{ match: WEIGHTS, cutAfter: CUT_AFTER, times: 1 }] });
    await catchError(fixture.locate());
    const blob = join(fixture.cacheDir, 'models--org--tiny', 'blobs', await hashWeights(fixture));
    await writeFile(`${blob}.lock`, 'elsewhere 1');
    for (const path of [`${blob}.lock`, `${blob}.incomplete`]) await utimes(path, 1, 1);
    await fixture.locate();
    expect(getWeightTransfers(fixture)[1]?.[0]).toBe(`bytes=${CUT_AFTER}-`);
  });
});
