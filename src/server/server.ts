import type { FastifyInstance } from 'fastify';
import { UserError } from '../errors.js';
import { createApp, createMetricsApp } from './app.js';
import type { AppOptions } from './app.js';
import type { BuildInfo, ServerContext } from './context.js';
import { unixSeconds } from './context.js';
import { isLoopback } from './cors.js';
import { createMetrics } from './metrics.js';
import type { ServerMetrics } from './metrics.js';
import { SILENT_LOGGER } from './request-log.js';
import type { ServerLogger } from './request-log.js';
import { DEFAULT_LIMITS } from './socket-options.js';
import type { SocketLimits, Tls } from './socket-options.js';
import { ServerState } from './state.js';
import type { Phase, ServedModel } from './state.js';

export interface ServerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** At least one; the first is shown. */
  readonly servedModelNames: readonly string[];
  readonly build: BuildInfo;
  readonly apiKeys?: readonly string[];
  /** Default: none when there are keys, else `*`. */
  readonly allowedOrigins?: readonly string[];
  /** Serve other machines without a key. */
  readonly allowUnauthenticated?: boolean;
  readonly metricsPort?: number;
  readonly protectMetrics?: boolean;
  readonly vllmMetricNames?: boolean;
  /** `''` or `/prefix` without a trailing slash. */
  readonly rootPath?: string;
  /** Most alternatives per token, -1 for the whole vocabulary; default 20. */
  readonly maxLogprobs?: number;
  readonly trustRequestChatTemplate?: boolean;
  /** Default 512. */
  readonly maxConcurrency?: number;
  readonly maxWaitingMs?: number;
  readonly limits?: Partial<SocketLimits>;
  /** Default 15 s. */
  readonly streamKeepAliveMs?: number;
  /** Bytes a slow reader may leave unread; default 1 MiB. */
  readonly streamBufferBytes?: number;
  readonly ssl?: Tls;
  readonly logger?: ServerLogger;
  /** Log request bodies, too; default false. */
  readonly logBodies?: boolean;
}

export interface ServerHandle {
  /** Base URL without `/v1`, with the real port. */
  readonly url: string;
  readonly port: number;
  /** Null when metrics are on the same port. */
  readonly metricsPort: number | null;
  readonly metrics: ServerMetrics;
  /** Of generation requests under way. */
  readonly inFlight: number;
  readonly phase: Phase;
  setProgress(step: string, fraction: number): void;
  setReady(model: ServedModel): void;
  /** /health says 503 from now on and requests are refused. */
  setDead(): void;
  /** Refuses new requests, lets running ones finish for at most `graceMs`, then aborts them. The port stays open for probes. */
  drain(graceMs: number): Promise<void>;
  /** Closes the port and every connection. */
  close(): Promise<void>;
}

const DEFAULT_MAX_LOGPROBS = 20;
const DEFAULT_MAX_CONCURRENCY = 512;
const DEFAULT_KEEP_ALIVE_MS = 15_000;
const DEFAULT_BUFFER_BYTES = 1 << 20;

function checkBinding(options: ServerOptions): void {
  if (options.servedModelNames.length === 0) {
    throw new UserError('invalid_config', 'The server needs at least one model name.', {
      param: 'served-model-name',
      suggestions: ['Give --served-model-name a value.'],
    });
  }
  if (isLoopback(options.host) || (options.apiKeys?.length ?? 0) > 0 || options.allowUnauthenticated === true)
    return;
  throw new UserError(
    'invalid_config',
    `Serving other machines on ${options.host} without a key would let anyone in.`,
    {
      param: 'host',
      suggestions: [
        'Add --api-key, listen on --host 127.0.0.1, or serve everyone: --allow-remote-without-key.',
      ],
    },
  );
}

function makeContext(options: ServerOptions, state: ServerState, metrics: ServerMetrics): ServerContext {
  return {
    state,
    metrics,
    logger: options.logger ?? SILENT_LOGGER,
    logBodies: options.logBodies ?? false,
    build: options.build,
    servedModelNames: options.servedModelNames,
    startedAt: unixSeconds(),
    maxLogprobs: options.maxLogprobs ?? DEFAULT_MAX_LOGPROBS,
    trustRequestChatTemplate: options.trustRequestChatTemplate ?? false,
    stream: {
      keepAliveMs: options.streamKeepAliveMs ?? DEFAULT_KEEP_ALIVE_MS,
      maxBufferedBytes: options.streamBufferBytes ?? DEFAULT_BUFFER_BYTES,
    },
    maxConcurrency: options.maxConcurrency ?? DEFAULT_MAX_CONCURRENCY,
    maxWaitingMs: options.maxWaitingMs ?? null,
  };
}

function appOptions(options: ServerOptions, context: ServerContext): AppOptions {
  const apiKeys = options.apiKeys ?? [];
  return {
    context,
    limits: { ...DEFAULT_LIMITS, ...options.limits },
    apiKeys,
    allowedOrigins: options.allowedOrigins ?? (apiKeys.length > 0 ? [] : ['*']),
    requiresLoopbackHost: isLoopback(options.host),
    protectMetrics: options.protectMetrics ?? false,
    hasOwnMetricsPort: options.metricsPort !== undefined,
    rootPath: options.rootPath ?? '',
    tls: options.ssl ?? null,
  };
}

function listenError(cause: NodeJS.ErrnoException, host: string, port: number): UserError {
  const { code, message } = cause;
  if (code === 'EADDRINUSE') {
    return new UserError('port_in_use', `Port ${port} of ${host} is already in use.`, {
      param: 'port',
      suggestions: [`Stop what listens there, or choose another port, for example --port ${port + 1}.`],
      cause,
    });
  }
  if (code === 'ENOTFOUND' || code === 'EADDRNOTAVAIL' || code === 'EAI_AGAIN') {
    return new UserError(
      'invalid_config',
      `Expected --host to be an address of this machine but received ${host}.`,
      {
        param: 'host',
        suggestions: [
          'Listen on this machine only: --host 127.0.0.1.',
          'Listen on every address: --host 0.0.0.0.',
        ],
        cause,
      },
    );
  }
  return new UserError('invalid_config', `Port ${port} of ${host} cannot be opened (${code ?? message}).`, {
    param: 'port',
    suggestions: ['Choose a port above 1023, for example --port 8000.'],
    cause,
  });
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<number> {
  try {
    await app.listen({ host, port });
  } catch (cause) {
    throw listenError(cause as NodeJS.ErrnoException, host, port);
  }
  const address = app.server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}

/** An app that is not listening, with what the tests and `startServer` drive it by. */
export function createServer(options: ServerOptions): {
  app: FastifyInstance;
  metricsApp: FastifyInstance | null;
  state: ServerState;
  context: ServerContext;
} {
  checkBinding(options);
  const state = new ServerState();
  const metrics = createMetrics({
    modelName: options.servedModelNames[0] as string,
    ...(options.vllmMetricNames === undefined ? {} : { vllmNames: options.vllmMetricNames }),
  });
  const context = makeContext(options, state, metrics);
  const forApp = appOptions(options, context);
  const app = createApp(forApp);
  app.server.maxConnections = forApp.limits.maxConnections;
  const metricsApp = options.metricsPort === undefined ? null : createMetricsApp(forApp);
  return { app, metricsApp, state, context };
}

/** Marks the model ready and connects its metrics. */
export function setModel(context: ServerContext, model: ServedModel): void {
  const { info } = model.engine;
  context.metrics.setLoaded({ ...info, build: context.build, stats: () => model.engine.stats() });
  context.state.setReady(model);
}

/**
 * Opens the port and answers probes; requests are refused with 503 until `setReady`.
 * @throws UserError `port_in_use`, or `invalid_config` for a public address without a key.
 */
export async function startServer(options: ServerOptions): Promise<ServerHandle> {
  const { app, metricsApp, state, context } = createServer(options);
  const { metrics } = context;
  const close = async (): Promise<void> => {
    app.server.closeAllConnections();
    metricsApp?.server.closeAllConnections();
    const { renderer, tokenizer } = state.loadedModel ?? {};
    await Promise.all([app.close(), metricsApp?.close(), renderer?.close(), tokenizer?.close()]);
    metrics.close();
  };
  let port: number;
  let metricsPort: number | null = null;
  try {
    port = await listen(app, options.host, options.port);
    if (metricsApp !== null) metricsPort = await listen(metricsApp, options.host, options.metricsPort ?? 0);
  } catch (error) {
    await close();
    throw error;
  }
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  return {
    url: `${options.ssl === undefined ? 'http' : 'https'}://${host}:${port}${options.rootPath ?? ''}`,
    port,
    metricsPort,
    metrics,
    get inFlight() {
      return state.inFlight;
    },
    get phase() {
      return state.phase;
    },
    setProgress: (step, fraction) => state.setProgress(step, fraction),
    setReady: (model) => setModel(context, model),
    setDead: () => state.setDead(),
    async drain(graceMs) {
      state.setDraining();
      await state.loadedModel?.engine.drain(graceMs);
    },
    close,
  };
}
