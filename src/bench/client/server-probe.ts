import { setTimeout as delay } from 'node:timers/promises';
import { UserError } from '../../errors.js';
import { errorText } from './answer-reader.js';
import { ConnectionError, UNTRUSTED, type HttpClient, type HttpResponse } from './http-client.js';
import { sampleWords } from './random-prompts.js';

/** What a server says about the model that it serves. */
export interface ServedModelFacts {
  readonly id: string;
  /** Longest prompt plus answer in tokens; null where the server does not say. */
  readonly maxModelLen: number | null;
}

const POLL_MS = 250;
const VERSION_TIMEOUT_MS = 5000;

/**
 * Calls `attempt` until it succeeds.
 * @param seconds time in which connections may be refused and answers may be 503
 * @throws UserError `server_unreachable` with the last reason, at once for a certificate that is not trusted
 */
export async function retryUntilReady<T>(
  attempt: () => Promise<T>,
  { seconds, url, signal }: { readonly seconds: number; readonly url: URL; readonly signal?: AbortSignal },
): Promise<T> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof ConnectionError && error.failure.kind === UNTRUSTED) throw untrusted(url, error);
      const isTemporary = error instanceof ConnectionError || error instanceof NotReadyError;
      if (!isTemporary) throw error;
      if (performance.now() >= deadline) throw unreachable(url, error, seconds);
    }
    await delay(POLL_MS, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    signal?.throwIfAborted();
  }
}

/** The server is there and does not answer requests yet. */
export class NotReadyError extends Error {}

/** Waiting would make nothing of it. */
function untrusted(url: URL, error: ConnectionError): UserError {
  return new UserError(
    'server_unreachable',
    `The certificate of ${url.origin} is not trusted: ${error.message.replace(/\.$/, '')}.`,
    {
      param: 'url',
      suggestions: [
        'Trust who signed it: NODE_EXTRA_CA_CERTS=ca.pem fdq bench serve ...',
        'Where the network is yours alone, take any certificate: --insecure.',
      ],
      cause: error,
    },
  );
}

function unreachable(url: URL, error: Error, seconds: number): UserError {
  const time = seconds > 0 ? ` within ${seconds} s` : '';
  return new UserError('server_unreachable', `No answer from ${url.origin}${time}: ${error.message}.`, {
    param: 'url',
    suggestions: [
      'Check that the server runs and that --url is its address.',
      'A server that is still starting is waited for with --ready-check-timeout-sec.',
    ],
    cause: error,
  });
}

/**
 * The model of that name, else the server's first.
 * @throws ConnectionError, NotReadyError; UserError `server_unreachable` when the server lists no model
 */
export async function findModel(
  client: HttpClient,
  wanted: string | undefined,
  signal?: AbortSignal,
): Promise<ServedModelFacts> {
  const response = await client.get('/v1/models', signal);
  if (response.status === 503) throw new NotReadyError(bodyMessage(response));
  if (response.status === 200) {
    const cards = modelCards(response.body);
    const card = wanted === undefined ? cards[0] : cards.find(({ id }) => id === wanted);
    if (card !== undefined) return card;
  }
  // Servers that list nothing, or not this name, may serve it all the same.
  if (wanted !== undefined && response.status !== 401) return { id: wanted, maxModelLen: null };
  throw new UserError(
    'server_unreachable',
    `/v1/models names no model: status ${response.status}, ${bodyMessage(response)}.`,
    {
      param: 'url',
      suggestions:
        response.status === 401
          ? ['Give the key of the server: FDQ_API_KEY=<secret>, or --api-key.']
          : ['Name the model: --served-model-name <name>.'],
    },
  );
}

function modelCards(body: string): readonly ServedModelFacts[] {
  const data = parseObject(body)['data'];
  return (Array.isArray(data) ? (data as unknown[]) : []).flatMap((card) => {
    const { id, max_model_len: length } = card as { id?: unknown; max_model_len?: unknown };
    if (typeof id !== 'string') return [];
    return [{ id, maxModelLen: typeof length === 'number' ? length : null }];
  });
}

/** What a server runs a model with, where it says so. */
export interface ServerRuntime {
  readonly isa: string | null;
  readonly onnxruntime: string | null;
}

/** By /version of fdq; other servers say neither, and need not know the route. */
export async function findRuntime(client: HttpClient, signal: AbortSignal): Promise<ServerRuntime> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(VERSION_TIMEOUT_MS)]);
  const response = await client.get('/version', limited).catch(() => undefined);
  signal.throwIfAborted();
  const { isa, onnxruntime } = response?.status === 200 ? parseObject(response.body) : {};
  return {
    isa: typeof isa === 'string' ? isa : null,
    onnxruntime: typeof onnxruntime === 'string' ? onnxruntime : null,
  };
}

const NUM_SAMPLE_WORDS = 1024;
const MIN_IDS = 16;

/**
 * Token ids that random prompts may be made of: those of made-up words, by /tokenize of fdq and vLLM, which take ids as a
 * prompt. Undefined where a server has no such route.
 */
export async function findTokenIds(
  client: HttpClient,
  model: string,
  signal?: AbortSignal,
): Promise<readonly number[] | undefined> {
  const payload = JSON.stringify({ model, prompt: sampleWords(NUM_SAMPLE_WORDS), add_special_tokens: false });
  const response = await client.post('/tokenize', payload, signal).catch(ignoreConnection);
  if (response?.status !== 200) return undefined;
  const { tokens } = parseObject(response.body);
  if (!Array.isArray(tokens)) return undefined;
  const ids = [...new Set(tokens as unknown[])].filter((id): id is number => Number.isInteger(id));
  return ids.length >= MIN_IDS ? ids : undefined;
}

function ignoreConnection(error: unknown): undefined {
  if (!(error instanceof ConnectionError)) throw error;
}

function parseObject(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function bodyMessage({ body }: HttpResponse & { readonly body: string }): string {
  const { error, detail } = parseObject(body);
  return errorText(error ?? detail ?? body.slice(0, 200));
}
