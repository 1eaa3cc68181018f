import http from 'node:http';
import https from 'node:https';
import { TLSSocket } from 'node:tls';
import type { Failure } from './record.js';

export interface HttpClientOptions {
  /** Base of all paths, without a trailing slash. */
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Whole seconds or fractions a request may take; Infinity: no limit. */
  readonly timeoutSeconds: number;
  /** Accept certificates that nobody vouches for. */
  readonly insecure: boolean;
}

/** What a caller hears about a response while it arrives. */
export interface ResponseHandlers {
  readonly onData: (text: string) => void;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
}

/** A connection that failed; `isBeforeResponse` says that no byte of an answer had arrived. */
export class ConnectionError extends Error {
  constructor(
    readonly failure: Failure,
    readonly isBeforeResponse: boolean,
    cause?: unknown,
  ) {
    super(failure.message, { cause });
  }
}

/** The kind of a failure: the other end may be anybody. */
export const UNTRUSTED = 'certificate';

/** The request was given up because its signal was aborted. */
export class AbortedError extends Error {}

const KIND_OF_CODE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
};

/**
 * POST and GET over node:http with connections that are kept. `fetch` is not used: inside Node it gives up on answers that
 * start after five minutes, which a queue in front of a slow model reaches, and its streams add work to every chunk.
 */
export class HttpClient {
  readonly #options: HttpClientOptions;
  readonly #agent: http.Agent;
  readonly #transport: typeof http | typeof https;

  constructor(options: HttpClientOptions) {
    this.#options = options;
    const isSecure = options.url.protocol === 'https:';
    this.#transport = isSecure ? https : http;
    const settings = { keepAlive: true, maxSockets: Infinity };
    this.#agent = isSecure
      ? new https.Agent({ ...settings, rejectUnauthorized: !options.insecure })
      : new http.Agent(settings);
  }

  /** Ends all connections. */
  close(): void {
    this.#agent.destroy();
  }

  /** The whole body of an answer. */
  async get(path: string, signal?: AbortSignal): Promise<HttpResponse & { readonly body: string }> {
    return this.#whole('GET', path, undefined, signal);
  }

  /** Sends JSON text; the whole body of the answer. */
  async post(
    path: string,
    payload: string,
    signal?: AbortSignal,
  ): Promise<HttpResponse & { readonly body: string }> {
    return this.#whole('POST', path, payload, signal);
  }

  /**
   * Sends JSON text and hands on the answer as it arrives; resolves when the answer has ended.
   * @param onResponse sees status and headers before any data
   * @throws ConnectionError, AbortedError
   */
  async stream(
    path: string,
    payload: string,
    handlers: ResponseHandlers & { readonly onResponse?: (response: HttpResponse) => void },
  ): Promise<HttpResponse> {
    return this.#send('POST', path, payload, handlers);
  }

  async #whole(
    method: string,
    path: string,
    payload: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<HttpResponse & { readonly body: string }> {
    let body = '';
    const response = await this.#send(method, path, payload, { onData: (text) => (body += text), signal });
    return { ...response, body };
  }

  #send(
    method: string,
    path: string,
    payload: string | undefined,
    handlers: ResponseHandlers & { readonly onResponse?: (response: HttpResponse) => void },
  ): Promise<HttpResponse> {
    const { url, headers } = this.#options;
    const { signal } = handlers;
    if (signal?.aborted === true) return Promise.reject(new AbortedError());
    const length = payload === undefined ? {} : { 'content-length': String(Buffer.byteLength(payload)) };
    const request = this.#transport.request(new URL(`${url.pathname.replace(/\/$/, '')}${path}`, url), {
      method,
      agent: this.#agent,
      headers: {
        ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
        ...length,
        ...headers,
      },
    });
    return new Promise<HttpResponse>((resolve, reject) => {
      const exchange = new Exchange(request, this.#options.timeoutSeconds, signal);
      exchange.finished.then(resolve, (error: unknown) => {
        // A kept connection may have been closed by the server meanwhile: that says nothing about this request.
        const isStale = request.reusedSocket && error instanceof ConnectionError && error.isBeforeResponse;
        if (isStale && error.failure.kind === 'reset') {
          this.#send(method, path, payload, handlers).then(resolve, reject);
        } else reject(error instanceof Error ? error : new Error(String(error)));
      });
      exchange.start(payload, handlers);
    });
  }
}

/** One request and its response as a promise that settles exactly once. */
class Exchange {
  readonly finished: Promise<HttpResponse>;
  #settle: (outcome: HttpResponse | Error) => void = () => undefined;
  #response: HttpResponse | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly request: http.ClientRequest,
    private readonly timeoutSeconds: number,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.finished = new Promise((resolve, reject) => {
      this.#settle = (outcome) => {
        clearTimeout(this.#timer);
        this.signal?.removeEventListener('abort', this.#onAbort);
        if (outcome instanceof Error) reject(outcome);
        else resolve(outcome);
      };
    });
  }

  start(
    payload: string | undefined,
    handlers: ResponseHandlers & { readonly onResponse?: (response: HttpResponse) => void },
  ): void {
    const { request, signal, timeoutSeconds } = this;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (timeoutSeconds < MAX_TIMER_SECONDS) {
      this.#timer = setTimeout(this.#onTimeout, timeoutSeconds * 1000);
      this.#timer.unref();
    }
    request.on('error', (error) => this.#fail(error));
    request.on('response', (message) => {
      const response = { status: message.statusCode ?? 0, headers: message.headers };
      this.#response = response;
      handlers.onResponse?.(response);
      message.setEncoding('utf8');
      message.on('data', (text: string) => handlers.onData(text));
      message.on('error', (error) => this.#fail(error));
      message.on('end', () => this.#settle(response));
    });
    request.end(payload);
  }

  readonly #onAbort = (): void => {
    this.#settle(new AbortedError());
    this.request.destroy();
  };

  readonly #onTimeout = (): void => {
    const message = `No end of the answer within ${this.timeoutSeconds} s.`;
    this.#settle(new ConnectionError({ kind: 'timeout', message }, this.#response === undefined));
    this.request.destroy();
  };

  #fail(error: NodeJS.ErrnoException): void {
    const code = error.code ?? error.name;
    const { socket } = this.request;
    // Node says so of a verification that failed, and of nothing else.
    const isUntrusted = socket instanceof TLSSocket && Boolean(socket.authorizationError);
    const kind = isUntrusted ? UNTRUSTED : (KIND_OF_CODE[code] ?? code);
    const failure = { kind, message: error.message || code };
    this.#settle(new ConnectionError(failure, this.#response === undefined, error));
  }
}

/** Timers of Node hold 31 bits of milliseconds; longer waits are no limit. */
const MAX_TIMER_SECONDS = 2 ** 31 / 1000 - 1;
