import { setTimeout as sleep } from 'node:timers/promises';
import { FdqError, UserError } from '../errors.js';
import type { HubSettings } from './hub-environment.js';
import { printable } from './quote.js';
import { adviseFolderFirst, formatFetchCommand } from './reference.js';
import type { RepoReference } from './reference.js';

export interface RetryPolicy {
  /** Tries after the first one that bring nothing new; 0 fails at once. */
  readonly attempts: number;
  /** Wait before the second try; doubles up to 30 s. */
  readonly delayMs: number;
}

/** A failure that may be gone in a moment: a lost connection, a busy or failing server. */
export class TransientHubError extends UserError {}

/** No connection came about at all: no network, no name resolution, nobody listening. */
class UnreachableHubError extends TransientHubError {}

export interface HubClient {
  readonly repo: RepoReference;
  readonly endpoint: string;
  /** For small answers: read whole, under a time limit. */
  readonly fetchMetadata: typeof fetch;
  /** For files: the body is still to be read, under `createStallGuard`. */
  readonly fetchBytes: (
    url: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ) => Promise<Response>;
}

export const DEFAULT_RETRY: RetryPolicy = { attempts: 5, delayMs: 1000 };

const USER_AGENT = 'fdq';
const MAX_METADATA_BYTES = 64 * 1024 * 1024;
const MAX_DELAY_MS = 30_000;
const RANGE_NOT_SATISFIABLE = 416;

export function describeAbort(cause?: unknown): UserError {
  return new UserError('aborted', 'The download was interrupted.', {
    suggestions: ['Run the same command again: it goes on where this one stopped.'],
    cause,
  });
}

/** A policy that gives up at once when no connection comes about: for the first request, which proves the network. */
export interface FirstContactPolicy extends RetryPolicy {
  readonly failsFast?: boolean;
}

/** Tries a task again while it fails with TransientHubError; `restart` resets the count when new bytes have arrived. */
export async function retry<T>(
  { attempts, delayMs, failsFast = false }: FirstContactPolicy,
  signal: AbortSignal,
  task: (restart: () => void) => Promise<T>,
): Promise<T> {
  let failures = 0;
  for (;;) {
    try {
      return await task(() => (failures = 0));
    } catch (error) {
      if (!(error instanceof TransientHubError) || failures >= attempts) throw error;
      if (failsFast && error instanceof UnreachableHubError) throw error;
    }
    const delay = Math.min(delayMs * 2 ** failures, MAX_DELAY_MS);
    failures++;
    try {
      await sleep(delay, undefined, { signal });
    } catch (error) {
      throw describeAbort(error);
    }
  }
}

/** Aborts when `touch` is not called for `timeoutMs`. */
export function createStallGuard(timeoutMs: number): {
  readonly signal: AbortSignal;
  readonly touch: () => void;
  readonly stop: () => void;
} {
  const controller = new AbortController();
  const abort = (): void => controller.abort(new Error(`nothing arrived for ${timeoutMs / 1000} s`));
  const timer = setTimeout(abort, timeoutMs);
  return { signal: controller.signal, touch: () => timer.refresh(), stop: () => clearTimeout(timer) };
}

/** The innermost reason of undici's "fetch failed". */
function describeReason(error: unknown): string {
  let reason = error;
  while (reason instanceof Error && reason.cause instanceof Error) reason = reason.cause;
  if (!(reason instanceof Error)) return 'unknown reason';
  const { code } = reason as NodeJS.ErrnoException;
  return printable(
    code === undefined || reason.message.includes(code) ? reason.message : `${code}, ${reason.message}`,
  );
}

/** Codes of Node and undici for a connection that was never there. */
const UNREACHABLE = /^(?:ENOTFOUND|EAI_\w+|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|UND_ERR_CONNECT_TIMEOUT)$/;

function isUnreachable(error: unknown): boolean {
  for (let reason = error; reason instanceof Error; reason = reason.cause) {
    if (UNREACHABLE.test((reason as NodeJS.ErrnoException).code ?? '')) return true;
  }
  return false;
}

export function describeNetworkFailure({ endpoint, repo }: HubClient, error: unknown): TransientHubError {
  const unreachable = isUnreachable(error);
  return new (unreachable ? UnreachableHubError : TransientHubError)(
    'download_failed',
    `The connection to ${new URL(endpoint).origin} failed: ${describeReason(error)}.`,
    {
      suggestions: [
        unreachable
          ? `Without a network fdq serves what is on this machine: fetch the model elsewhere (${formatFetchCommand(repo)}) and copy it.`
          : 'Check the network and run the same command again: it goes on where this one stopped.',
        'Set HF_ENDPOINT to use a mirror, or copy the model folder here and give its path.',
        `Behind a proxy: ${formatFetchCommand(repo)}, after which fdq finds the model in the cache.`,
      ],
      cause: error,
    },
  );
}

function describeDenied({ repo, endpoint }: HubClient, status: number, hasToken: boolean): UserError {
  if (hasToken) {
    return new UserError(
      'download_failed',
      `The hub rejected the access token for ${repo.id} (HTTP ${status}).`,
      {
        param: repo.id,
        suggestions: ['Set HF_TOKEN to a valid token with read access, or unset it if the model is public.'],
      },
    );
  }
  return new UserError(
    'model_not_found',
    `${repo.id} does not exist on ${endpoint} or is private (HTTP ${status}).`,
    {
      param: repo.id,
      suggestions: [
        'Check the spelling of the model id.',
        'For a private model set HF_TOKEN to a token with read access.',
      ],
    },
  );
}

function describeStatus(client: HubClient, response: Response, hasToken: boolean): UserError {
  const { repo, endpoint } = client;
  const { status } = response;
  const errorCode = response.headers.get('x-error-code');
  if (status === 403 || errorCode === 'GatedRepo') {
    return new UserError('download_failed', `Access to ${repo.id} is gated (HTTP ${status}).`, {
      param: repo.id,
      suggestions: [
        `Accept the conditions at ${endpoint}/${repo.id}, then set HF_TOKEN to a token of that account.`,
      ],
    });
  }
  if (status === 401) return describeDenied(client, status, hasToken);
  if (status === 404 && errorCode === 'RevisionNotFound') {
    const advice = adviseFolderFirst(repo);
    return new UserError('model_not_found', `${repo.id} has no revision ${repo.revision} on ${endpoint}.`, {
      param: repo.revision,
      suggestions: [
        ...(advice === undefined ? [] : [advice]),
        `See the branches and tags at ${endpoint}/${repo.id}.`,
      ],
    });
  }
  if (status === 404 && errorCode === 'EntryNotFound' && repo.folder !== undefined) {
    return new UserError('model_not_found', `${repo.id} has no folder ${repo.folder} on ${endpoint}.`, {
      param: repo.folder,
      suggestions: [`See its files at ${endpoint}/${repo.id}/tree/${repo.revision}.`],
    });
  }
  if (status === 404) {
    return new UserError('model_not_found', `${repo.id} does not exist on ${endpoint} (HTTP 404).`, {
      param: repo.id,
      suggestions: ['Check the spelling of the model id.'],
    });
  }
  const details = {
    param: repo.id,
    suggestions:
      status === 429
        ? ['Wait a few minutes; signed-in users (HF_TOKEN) may ask more often.']
        : [
            'Run the same command again later: it goes on where this one stopped.',
            'Set HF_ENDPOINT to use a mirror.',
          ],
  };
  const message = `${endpoint} answered HTTP ${status} for ${repo.id}.`;
  const isTransient = status === 408 || status === 429 || status >= 500;
  return new (isTransient ? TransientHubError : UserError)('download_failed', message, details);
}

/** The answer's chunks; none when it has no body. */
export function readBody(response: Response): AsyncIterable<Uint8Array> | readonly Uint8Array[] {
  return response.body ?? [];
}

async function readLimited(response: Response, touch: () => void): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of readBody(response)) {
    touch();
    total += chunk.length;
    if (total > MAX_METADATA_BYTES) throw new Error(`an answer is longer than ${MAX_METADATA_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/**
 * Requests to the hub. The token goes only to the endpoint's own origin (fetch drops it on a redirect to another
 * one); every failure is a UserError that says what to do, a lost connection or HTTP 5xx a TransientHubError.
 */
export function createHubClient(
  repo: RepoReference,
  settings: HubSettings,
  token: string | undefined,
  callerSignal: AbortSignal,
): HubClient {
  const { endpoint } = settings;
  const { origin } = new URL(endpoint);

  const request = async (
    url: string,
    init: RequestInit,
    signals: readonly AbortSignal[],
  ): Promise<Response> => {
    const headers = new Headers(init.headers);
    headers.set('user-agent', USER_AGENT);
    const hasToken = token !== undefined && new URL(url).origin === origin;
    if (hasToken) headers.set('authorization', `Bearer ${token}`);
    const response = await fetch(url, { ...init, headers, signal: AbortSignal.any([...signals]) });
    if (response.ok || response.status === RANGE_NOT_SATISFIABLE) return response;
    await response.body?.cancel();
    throw describeStatus(client, response, hasToken);
  };

  const explain = (error: unknown): Error => {
    if (error instanceof FdqError) return error;
    return callerSignal.aborted ? describeAbort(error) : describeNetworkFailure(client, error);
  };

  const client: HubClient = {
    repo,
    endpoint,
    fetchMetadata: async (input, init = {}) => {
      const guard = createStallGuard(settings.metadataTimeoutMs);
      try {
        const url = input instanceof Request ? input.url : String(input);
        const response = await request(url, init, [callerSignal, guard.signal]);
        const { status, headers } = response;
        return new Response(await readLimited(response, guard.touch), { status, headers });
      } catch (error) {
        throw explain(error);
      } finally {
        guard.stop();
      }
    },
    fetchBytes: async (url, headers, signal) => {
      try {
        return await request(url, { headers }, [callerSignal, signal]);
      } catch (error) {
        throw explain(error);
      }
    },
  };
  return client;
}
