import Fastify from 'fastify';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { FdqError, UserError } from '../errors.js';
import { KeyChecker } from './auth.js';
import { handleChat } from './chat.js';
import { handleCompletions } from './completions.js';
import type { RequestRecord, ServerContext } from './context.js';
import { checkLoopbackHost, CorsPolicy } from './cors.js';
import { handleHealth, handleLive, handleLoad, handleMetrics, handleVersion } from './health.js';
import { notFound, pathOf, sendError, toFdqError, unsupportedMediaType } from './http-errors.js';
import { parseJsonBody } from './json-body.js';
import { handleModel, handleModels } from './models.js';
import { logBody, logRequest, newRequestId, sanitizeId } from './request-log.js';
import { answerClientError, discardBody, nodeServerOptions } from './socket-options.js';
import type { SocketLimits, Tls } from './socket-options.js';
import { handleDetokenize, handleTokenize, handleTokenizerInfo } from './tokenize.js';

type Handler = (request: FastifyRequest, reply: FastifyReply, context: ServerContext) => unknown;

interface Route {
  readonly path: string;
  readonly methods: readonly ('GET' | 'POST')[];
  readonly handler: Handler;
  /** Answers without a key: probes cannot send one. */
  readonly isOpen?: boolean;
}

const METRICS: Route = { path: '/metrics', methods: ['GET'], handler: handleMetrics };
const PROBES: readonly Route[] = [
  { path: '/health', methods: ['GET'], handler: handleHealth, isOpen: true },
  { path: '/ping', methods: ['GET', 'POST'], handler: handleHealth, isOpen: true },
  { path: '/live', methods: ['GET'], handler: handleLive, isOpen: true },
];

export const ROUTES: readonly Route[] = [
  { path: '/v1/chat/completions', methods: ['POST'], handler: handleChat },
  { path: '/v1/completions', methods: ['POST'], handler: handleCompletions },
  { path: '/v1/models', methods: ['GET'], handler: handleModels },
  { path: '/v1/models/*', methods: ['GET'], handler: handleModel },
  { path: '/tokenize', methods: ['POST'], handler: handleTokenize },
  { path: '/detokenize', methods: ['POST'], handler: handleDetokenize },
  { path: '/tokenizer_info', methods: ['GET'], handler: handleTokenizerInfo },
  { path: '/version', methods: ['GET'], handler: handleVersion },
  { path: '/load', methods: ['GET'], handler: handleLoad },
  METRICS,
  ...PROBES,
];

export interface AppOptions {
  readonly context: ServerContext;
  readonly limits: SocketLimits;
  readonly apiKeys: readonly string[];
  readonly allowedOrigins: readonly string[];
  /** The Host header must name loopback. */
  readonly requiresLoopbackHost: boolean;
  /** /metrics needs a key, too. */
  readonly protectMetrics: boolean;
  /** /metrics is on a port of its own and not here. */
  readonly hasOwnMetricsPort: boolean;
  /** Prefix a proxy leaves on paths, '' for none. */
  readonly rootPath: string;
  readonly tls: Tls | null;
}

/** What precedes the path of a request in absolute form (RFC 9112, 3.2.2), as clients send it to a proxy. */
const ORIGIN = /^https?:\/\/[^/?#]*/i;

/** Removes origin, prefix and doubled slashes; clients join base URLs in every way. */
function normalizeUrl(given: string, rootPath: string): string {
  const url = given.replace(ORIGIN, '');
  const start = url.indexOf('?');
  const path = (start < 0 ? url : url.slice(0, start)).replace(/\/{2,}/g, '/');
  const query = start < 0 ? '' : url.slice(start);
  const isPrefixed = rootPath !== '' && (path === rootPath || path.startsWith(`${rootPath}/`));
  return ((isPrefixed ? path.slice(rootPath.length) : path) || '/') + query;
}

function newRecord(): RequestRecord {
  return {
    startedAt: performance.now(),
    keyHolder: '',
    stream: false,
    promptTokens: 0,
    generatedTokens: 0,
    firstTokenAt: null,
    status: null,
    errorCode: null,
    isExpected: false,
  };
}

function makeFastify(options: AppOptions): FastifyInstance {
  const { limits, rootPath } = options;
  return Fastify({
    ...nodeServerOptions(limits, options.tls),
    bodyLimit: limits.bodyLimitBytes,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    rewriteUrl: (request) => normalizeUrl(request.url ?? '/', rootPath),
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 512 },
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return (typeof given === 'string' ? sanitizeId(given) : '') || newRequestId();
    },
    frameworkErrors: (error, request, reply) => {
      reply.header('x-request-id', request.id);
      void sendError(toFdqError(error), reply);
    },
    clientErrorHandler: answerClientError,
  });
}

/** CORS, keys and the Host check, before anything of a body is read. */
function addGuards(app: FastifyInstance, options: AppOptions, routes: readonly Route[]): void {
  const cors = new CorsPolicy(options.allowedOrigins);
  const keys = new KeyChecker(options.apiKeys);
  const isOpen = (route: Route): boolean =>
    route.isOpen === true || (route === METRICS && !options.protectMetrics);
  const open = new Set(routes.filter(isOpen).map((route) => route.path));
  app.addHook('onRequest', async (request, reply) => {
    cors.apply(request, reply);
    if (options.requiresLoopbackHost) checkLoopbackHost(request.headers.host);
    if (request.method === 'OPTIONS')
      return cors.answerOptions(request, reply, methodsOf(routes, request.url));
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity') {
      throw unsupportedMediaType('Compressed request bodies are not accepted.');
    }
    if (!open.has(request.routeOptions.url ?? ''))
      request.record.keyHolder = keys.check(request.headers.authorization);
    return undefined;
  });
}

function methodsOf(routes: readonly Route[], url: string): string[] {
  const path = pathOf(url);
  const bare = path.length > 1 ? path.replace(/\/$/, '') : path;
  const matching = routes.filter((route) =>
    route.path.endsWith('/*') ? bare.startsWith(route.path.slice(0, -1)) : bare === route.path,
  );
  const methods = matching.flatMap((route) => route.methods);
  return [...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'];
}

function addErrors(app: FastifyInstance, routes: readonly Route[], context: ServerContext): void {
  const answer = (thrown: unknown, request: FastifyRequest, reply: FastifyReply): void => {
    const error = toFdqError(thrown);
    request.record.errorCode = error.code;
    if (error.code === 'aborted') request.record.status = error.httpStatus;
    if (error.httpStatus === 500)
      context.logger.error({ id: request.id, err: error.cause ?? error }, 'request failed');
    if (error.code === 'payload_too_large') {
      discardBody(request.raw, () => void sendError(error, reply));
    } else {
      void sendError(error, reply);
    }
  };
  app.setErrorHandler(answer);
  app.setNotFoundHandler((request, reply) => {
    const methods = methodsOf(routes, request.url);
    if (methods.length === 1) {
      answer(
        notFound(
          request,
          routes.map((route) => route.path),
        ),
        request,
        reply,
      );
      return;
    }
    reply.header('allow', methods.join(', '));
    const message = `${request.method} is not allowed on ${pathOf(request.url)}.`;
    answer(
      new UserError('method_not_allowed', message, { suggestions: [`Use ${methods.join(' or ')}.`] }),
      request,
      reply,
    );
  });
}

/** Every request has an id and a record, whatever becomes of it: add this before the guards. */
function addIds(app: FastifyInstance): void {
  app.decorateRequest('record', null as unknown as RequestRecord);
  app.addHook('onRequest', async (request, reply) => {
    request.record = newRecord();
    reply.header('x-request-id', request.id);
  });
}

function addRecords(app: FastifyInstance, context: ServerContext): void {
  if (context.logBodies) {
    app.addHook('preHandler', (request, _reply, done) => {
      logBody(request, context.logger);
      done();
    });
  }
  app.addHook('onRequest', async (request, reply) => {
    // 'close' also comes when the client left, and for streams that fastify no longer manages.
    let isFinished = false;
    reply.raw.once('finish', () => (isFinished = true));
    reply.raw.once('close', () => {
      const { record } = request;
      if (!isFinished) {
        record.status ??= new FdqError('aborted', '').httpStatus;
        record.errorCode ??= 'aborted';
      }
      context.metrics.countRequest(
        request.routeOptions.url ?? 'unknown',
        record.status ?? reply.raw.statusCode,
      );
      if (record.errorCode !== null) context.metrics.countFailure(record.errorCode);
      logRequest(request, reply, context.logger);
    });
  });
}

function addRoutes(app: FastifyInstance, routes: readonly Route[], context: ServerContext): void {
  for (const { path, methods, handler } of routes) {
    app.route({
      method: [...methods],
      url: path,
      handler: (request, reply) => handler(request, reply, context),
    });
  }
}

/** The whole HTTP surface of one server, not yet listening. */
export function createApp(options: AppOptions): FastifyInstance {
  const app = makeFastify(options);
  const routes = options.hasOwnMetricsPort ? ROUTES.filter((route) => route !== METRICS) : ROUTES;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    /^application\/([\w.+-]+\+)?json\b/i,
    { parseAs: 'buffer' },
    (_request, body, done) => {
      try {
        done(null, parseJsonBody(body as Buffer));
      } catch (error) {
        done(error as Error);
      }
    },
  );
  addErrors(app, routes, options.context);
  addIds(app);
  addRecords(app, options.context);
  addGuards(app, options, routes);
  addRoutes(app, routes, options.context);
  return app;
}

/** /metrics and the probes alone, for a port that is not public. */
export function createMetricsApp(options: AppOptions): FastifyInstance {
  const app = makeFastify({ ...options, tls: null });
  const routes = [METRICS, ...PROBES];
  addErrors(app, routes, options.context);
  addIds(app);
  addGuards(app, options, routes);
  addRoutes(app, routes, options.context);
  return app;
}
