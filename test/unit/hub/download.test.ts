import {
  lstat,
  open,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
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
import { ID, readSnapshot, startFixture } from './hub-fixture.js';
import { SERVED, WEIGHTS, getWeightTransfers, hashWeights } from './download-fixture.js';

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
