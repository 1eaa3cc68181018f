import type { FastifyReply, FastifyRequest } from 'fastify';
import { UserError } from '../errors.js';

const PREFLIGHT_MAX_AGE_S = '600';
const LOOPBACK_NAMES: ReadonlySet<string> = new Set(['localhost', '127.0.0.1', '[::1]', '::1']);

/** Which web pages may read answers: `*`, or exact origins. No credentials are ever allowed. */
export class CorsPolicy {
  readonly #any: boolean;
  readonly #origins: ReadonlySet<string>;

  constructor(origins: readonly string[]) {
    this.#any = origins.includes('*');
    this.#origins = new Set(origins);
  }

  /** Sets the headers of a permitted origin; others get none, so their browser withholds the answer. */
  apply(request: FastifyRequest, reply: FastifyReply): void {
    const origin = request.headers.origin;
    if (!this.#any) reply.header('vary', 'origin');
    if (origin === undefined || !this.#allows(origin)) return;
    reply.header('access-control-allow-origin', this.#any ? '*' : origin);
    reply.header('access-control-expose-headers', 'x-request-id, retry-after');
  }

  /**
   * Answers an OPTIONS request.
   * @throws UserError `forbidden` for a preflight of an origin that is not allowed.
   */
  answerOptions(request: FastifyRequest, reply: FastifyReply, methods: readonly string[]): FastifyReply {
    const origin = request.headers.origin;
    reply.header('allow', methods.join(', '));
    if (origin !== undefined) {
      if (!this.#allows(origin)) {
        throw new UserError('forbidden', 'This origin may not use the server from a web page.', {
          suggestions: ['Start the server with --allowed-origins naming the page’s origin.'],
        });
      }
      reply.header('access-control-allow-methods', methods.join(', '));
      reply.header('access-control-allow-headers', request.headers['access-control-request-headers'] ?? '*');
      reply.header('access-control-max-age', PREFLIGHT_MAX_AGE_S);
    }
    return reply.code(204).send();
  }

  #allows(origin: string): boolean {
    return this.#any || this.#origins.has(origin);
  }
}

export function isLoopback(host: string): boolean {
  return LOOPBACK_NAMES.has(host) || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/**
 * Guards a server bound to loopback against DNS rebinding: a page whose name resolves to 127.0.0.1 sends its own name as Host.
 * @throws UserError `forbidden` when the Host header is not a name of this machine's loopback.
 */
export function checkLoopbackHost(hostHeader: string | undefined): void {
  const name = (hostHeader ?? '').replace(/:\d*$/, '').toLowerCase();
  if (isLoopback(name)) return;
  throw new UserError('forbidden', 'The Host header does not name this server.', {
    param: 'host',
    suggestions: [
      'Use http://127.0.0.1 or http://localhost, or bind the server to another address with --host.',
    ],
  });
}
