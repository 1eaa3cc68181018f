import { describe, expect, it } from 'vitest';
import { catchError } from './catch-error.js';
import { startFixture } from './hub-fixture.js';
import { WEIGHTS } from './download-fixture.js';

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
    expect(error.suggestions[0]).toContain('hf download org/tiny');
    expect(error.message).toMatch(/connection to http:\/\/127\.0\.0\.1:\d+ failed: .*ECONNREFUSED/);
  });
});
