import { mkdir, readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openCheckpoint } from '../../../src/hub/checkpoint.js';
import type { DownloadProgress } from '../../../src/hub/download.js';
import { catchError } from './catch-error.js';
import { ID, readSnapshot, startFixture, WEIGHT_BYTES } from './hub-fixture.js';
import { CUT_AFTER, WEIGHTS, getWeightTransfers, hashWeights } from './download-fixture.js';

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
