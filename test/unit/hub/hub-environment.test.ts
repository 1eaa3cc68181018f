import { writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { expandPath, readHubSettings } from '../../../src/hub/hub-environment.js';
import { createTempDir } from '../../helpers/temp-dir.js';
import { catchError } from './catch-error.js';

describe('readHubSettings', () => {
  it.each<[Record<string, string>, string]>([
    [{ HOME: '/h' }, '/h/.cache/huggingface/hub'],
    [{ HOME: '/h', XDG_CACHE_HOME: '/x' }, '/x/huggingface/hub'],
    [{ HF_HOME: '/hf', XDG_CACHE_HOME: '/x' }, '/hf/hub'],
    [{ HUGGINGFACE_HUB_CACHE: '/old', HF_HOME: '/hf' }, '/old'],
    [{ HF_HUB_CACHE: '/new', HUGGINGFACE_HUB_CACHE: '/old', HF_HOME: '/hf' }, '/new'],
    [{ HF_HUB_CACHE: '', HF_HOME: '/hf' }, '/hf/hub'],
    [{ HOME: '/h', HF_HOME: '~/models' }, '/h/models/hub'],
    [{ HOME: '/h', BIG: '/disk', HF_HUB_CACHE: '$BIG/${SUB}x', SUB: 's' }, '/disk/sx'],
  ])('%j keeps the cache in %s', (env, cacheDir) => {
    expect(readHubSettings(env).cacheDir).toBe(cacheDir);
  });

  it('falls back to the home of the account', () => {
    expect(readHubSettings({}).cacheDir).toBe(join(homedir(), '.cache/huggingface/hub'));
  });

  it.each(['1', 'ON', 'on', 'yes', 'YES', 'true', 'True'])('is offline for %s', (value) => {
    expect(readHubSettings({ HF_HUB_OFFLINE: value }).isOffline).toBe(true);
    expect(readHubSettings({ TRANSFORMERS_OFFLINE: value }).isOffline).toBe(true);
  });

  it.each(['', '0', 'OFF', 'no', 'false', '2'])('is not offline for "%s"', (value) => {
    expect(readHubSettings({ HF_HUB_OFFLINE: value }).isOffline).toBe(false);
  });

  it('strips slashes from the endpoint', () => {
    expect(readHubSettings({}).endpoint).toBe('https://huggingface.co');
    expect(readHubSettings({ HF_ENDPOINT: 'http://mirror/hub//' }).endpoint).toBe('http://mirror/hub');
  });

  it.each(['mirror', 'ftp://mirror', 'https://user:s3cret@mirror', 'https://'])(
    'refuses the endpoint %s without repeating it',
    (endpoint) => {
      const read = () => readHubSettings({ HF_ENDPOINT: endpoint });
      expect(read).toThrow(/HF_ENDPOINT/);
      expect(read).not.toThrow(/s3cret/);
    },
  );

  it('reads timeouts in seconds', () => {
    const env = { HF_HUB_ETAG_TIMEOUT: '3', HF_HUB_DOWNLOAD_TIMEOUT: '0.5' };
    expect(readHubSettings(env)).toMatchObject({ metadataTimeoutMs: 3000, downloadTimeoutMs: 500 });
    expect(() => readHubSettings({ HF_HUB_ETAG_TIMEOUT: 'soon' })).toThrow(/HF_HUB_ETAG_TIMEOUT.*"soon"/);
    expect(() => readHubSettings({ HF_HUB_DOWNLOAD_TIMEOUT: '0' })).toThrow(/HF_HUB_DOWNLOAD_TIMEOUT/);
  });
});

describe('the token', () => {
  it('comes from HF_TOKEN, its old name, a named file or the home, in this order', async () => {
    const dir = await createTempDir();
    await writeFile(join(dir, 'token'), 'hf_home\n');
    await writeFile(join(dir, 'other'), 'hf_file');
    const env: Record<string, string> = { HF_HOME: dir };
    expect(await readHubSettings(env).readToken()).toBe('hf_home');
    env['HF_TOKEN_PATH'] = join(dir, 'other');
    expect(await readHubSettings(env).readToken()).toBe('hf_file');
    env['HUGGING_FACE_HUB_TOKEN'] = 'hf_old';
    expect(await readHubSettings(env).readToken()).toBe('hf_old');
    env['HF_TOKEN'] = ' hf_new\n';
    expect(await readHubSettings(env).readToken()).toBe('hf_new');
    env['HF_HUB_DISABLE_IMPLICIT_TOKEN'] = 'true';
    expect(await readHubSettings(env).readToken()).toBeUndefined();
  });

  it('may be absent', async () => {
    expect(await readHubSettings({ HF_HOME: await createTempDir() }).readToken()).toBeUndefined();
  });

  it('is refused, and not shown, when it cannot be sent', async () => {
    const error = await catchError(readHubSettings({ HF_TOKEN: 'hf_a\nhf_b' }).readToken());
    expect(error.code).toBe('invalid_config');
    expect(JSON.stringify([error.message, error.suggestions, error.param])).not.toContain('hf_a');
  });
});

describe('expandPath', () => {
  it.each([
    ['~', '/h'],
    ['~/x', '/h/x'],
    ['/a/~/x', '/a/~/x'],
    ['~other/x', resolve('~other/x')],
    ['/$UNSET/${UNSET}', '/$UNSET/${UNSET}'],
    ['/${A}b/$A', '/valb/val'],
  ])('turns %s into %s', (path, expanded) => {
    expect(expandPath(path, { HOME: '/h', A: 'val' })).toBe(expanded);
  });
});
