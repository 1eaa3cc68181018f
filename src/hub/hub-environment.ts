import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { UserError } from '../errors.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/** What the variables of huggingface_hub say, read once. */
export interface HubSettings {
  /** Absolute. */
  readonly cacheDir: string;
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly isOffline: boolean;
  /** Longest wait for an answer to begin, and for the next bytes of a file. */
  readonly metadataTimeoutMs: number;
  readonly downloadTimeoutMs: number;
  /** Read when first asked for; never part of a message. */
  readonly readToken: () => Promise<string | undefined>;
}

const DEFAULT_ENDPOINT = 'https://huggingface.co';
const DEFAULT_TIMEOUT_SECONDS = 10;
const TRUE_VALUES: ReadonlySet<string> = new Set(['1', 'ON', 'YES', 'TRUE']);
/** What an HTTP header value can carry. */
const TOKEN_CHARACTERS = /^[\x21-\x7e]+$/;

function isTrue(value: string | undefined): boolean {
  return value !== undefined && TRUE_VALUES.has(value.trim().toUpperCase());
}

/** A value that is set and not empty. */
function read(env: Environment, ...names: readonly string[]): string | undefined {
  return names.map((name) => env[name]).find((value) => value !== undefined && value !== '');
}

/** `~`, `$NAME` and `${NAME}` as Python's expanduser and expandvars do: an unset variable stays as it is written. */
export function expandPath(path: string, env: Environment): string {
  const withVariables = path.replace(
    /\$(?:(\w+)|\{([^}]*)\})/g,
    (whole, plain: string | undefined, braced: string | undefined) => env[plain ?? braced ?? ''] ?? whole,
  );
  const home = read(env, 'HOME') ?? homedir();
  return resolve(withVariables.replace(/^~(?=\/|$)/, () => home));
}

function readHome(env: Environment): string {
  const home = read(env, 'HF_HOME');
  if (home !== undefined) return expandPath(home, env);
  return join(expandPath(read(env, 'XDG_CACHE_HOME') ?? '~/.cache', env), 'huggingface');
}

function readEndpoint(env: Environment): string {
  const endpoint = (read(env, 'HF_ENDPOINT') ?? DEFAULT_ENDPOINT).replace(/\/+$/, '');
  let url: URL | undefined;
  try {
    url = new URL(endpoint);
  } catch {
    url = undefined;
  }
  // A URL may carry a password, so its value stays out of the message.
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '') {
    throw new UserError(
      'invalid_config',
      'Expected HF_ENDPOINT to be an http or https URL without credentials.',
      {
        param: 'HF_ENDPOINT',
        suggestions: [
          `Unset HF_ENDPOINT to use ${DEFAULT_ENDPOINT}, or set it like https://mirror.example.org.`,
        ],
      },
    );
  }
  return endpoint;
}

function readTimeoutMs(env: Environment, name: string): number {
  const text = read(env, name);
  const seconds = text === undefined ? DEFAULT_TIMEOUT_SECONDS : Number(text);
  if (!(seconds > 0) || !Number.isFinite(seconds)) {
    throw new UserError(
      'invalid_config',
      `Expected a number of seconds for ${name} but received "${text}".`,
      {
        param: name,
        suggestions: [`Unset ${name} to wait ${DEFAULT_TIMEOUT_SECONDS} seconds.`],
      },
    );
  }
  return seconds * 1000;
}

async function readTokenFile(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

async function readToken(env: Environment): Promise<string | undefined> {
  if (isTrue(env['HF_HUB_DISABLE_IMPLICIT_TOKEN'])) return undefined;
  const variable = read(env, 'HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN');
  const tokenPath = read(env, 'HF_TOKEN_PATH');
  const file = tokenPath === undefined ? join(readHome(env), 'token') : expandPath(tokenPath, env);
  const token = (variable ?? (await readTokenFile(file)))?.trim();
  if (token === undefined || token === '') return undefined;
  if (!TOKEN_CHARACTERS.test(token)) {
    throw new UserError(
      'invalid_config',
      'The Hugging Face token holds a space, control or non-ASCII character.',
      {
        param: variable === undefined ? file : 'HF_TOKEN',
        suggestions: ['Copy the token again from the access token page of your Hugging Face account.'],
      },
    );
  }
  return token;
}

/**
 * Reads the variables in huggingface_hub's order: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME, XDG_CACHE_HOME,
 * HF_ENDPOINT, HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE, HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH,
 * HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_ETAG_TIMEOUT, HF_HUB_DOWNLOAD_TIMEOUT.
 *
 * @throws UserError `invalid_config` naming the variable.
 */
export function readHubSettings(env: Environment): HubSettings {
  const cache = read(env, 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE');
  return {
    cacheDir: cache === undefined ? join(readHome(env), 'hub') : expandPath(cache, env),
    endpoint: readEndpoint(env),
    isOffline: isTrue(env['HF_HUB_OFFLINE']) || isTrue(env['TRANSFORMERS_OFFLINE']),
    metadataTimeoutMs: readTimeoutMs(env, 'HF_HUB_ETAG_TIMEOUT'),
    downloadTimeoutMs: readTimeoutMs(env, 'HF_HUB_DOWNLOAD_TIMEOUT'),
    readToken: () => readToken(env),
  };
}
