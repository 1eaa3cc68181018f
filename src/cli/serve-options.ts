import process from 'node:process';
import { UserError, UnsupportedError } from '../errors.js';
import { withAuto, type AutoQuantizationOptions } from './auto-options.js';
import type { CacheOptions } from './cache-options.js';
import type { FlagValues } from './flag-row.js';
import type { SERVE_FLAGS } from './flags.js';
import type { JsonObject } from './json-values.js';
import { quantizationOptions } from './quantization-options.js';

/** Everything the serving service needs to know, checked: sizes in bytes, times in milliseconds. */
export interface ServeOptions extends AutoQuantizationOptions {
  /** Folder, or Hugging Face id with an optional `@revision`. */
  readonly model: string;
  readonly revision?: string;
  /** Folder; absent: the model's own. */
  readonly tokenizer?: string;
  readonly offline: boolean;
  readonly dtype: 'auto' | 'float32' | 'bfloat16';
  readonly device: 'auto' | 'cpu';
  /** Absent: chosen by the service. */
  readonly threads?: number;
  /** FDQ_ISA: kernels of one instruction set, for tests. */
  readonly isa?: string;
  /** Absent: nothing is kept. */
  readonly cache?: CacheOptions;
  readonly memory: MemoryOptions;
  readonly chat: ChatOptions;
  readonly http: HttpOptions;
  /** How long running requests may take after the first signal. */
  readonly gracefulShutdownMs: number;
  /** Gets the URL when ready. */
  readonly readyFile?: string;
}

/** Absent numbers are computed from model and machine. */
export interface MemoryOptions {
  readonly maxModelLen?: number;
  readonly maxNumSeqs?: number;
  readonly maxNumBatchedTokens?: number;
  /** Share of the machine's memory, 0..1, when kvCacheBytes is absent. */
  readonly memoryUtilization: number;
  readonly kvCacheBytes?: number;
  readonly kvCacheDtype: 'auto' | 'float32' | 'bfloat16' | 'int8' | 'fp8' | 'int4';
  /** Positions of a KV block. */
  readonly blockSize: number;
  readonly numBlocksOverride?: number;
  readonly enablePrefixCaching: boolean;
  /** 0: no limit. */
  readonly longPrefillTokenThreshold: number;
  readonly maxNumPartialPrefills?: number;
}

export interface ChatOptions {
  /** File or template text. */
  readonly chatTemplate?: string;
  /** `auto`, `vllm` or a folder. */
  readonly generationConfig: string;
  readonly overrideGenerationConfig: JsonObject;
  /** Seed of requests that bring none; absent: random for each. */
  readonly seed?: number;
  /** -1: the whole vocabulary. */
  readonly maxLogprobs: number;
}

export interface HttpOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** Empty: the service derives one from the model. */
  readonly servedModelNames: readonly string[];
  readonly apiKeys: readonly string[];
  /** Absent: the server's default. */
  readonly allowedOrigins?: readonly string[];
  readonly ssl?: { readonly keyFile: string; readonly certFile: string };
  /** `''` or `/prefix` without a trailing slash. */
  readonly rootPath: string;
  readonly metricsPort?: number;
  /** Absent: no limit. */
  readonly maxWaitingMs?: number;
  readonly maxConcurrency: number;
  /** Log line per request, and whether it carries the body. */
  readonly requestLog: 'none' | 'line' | 'body';
}

export type ServeFlagValues = FlagValues<typeof SERVE_FLAGS>;

/**
 * Checks what single flags cannot know: flags that belong together and values this version refuses.
 * @throws UserError `usage`
 */
export function toServeOptions(flags: ServeFlagValues): ServeOptions {
  refuseUnsupported(flags);
  return defined({
    model: requireModel(flags.model),
    revision: flags.revision,
    tokenizer: flags.tokenizer,
    offline: flags.offline ?? false,
    ...withAuto(quantizationOptions(flags), flags),
    dtype: flags.dtype,
    device: flags.device,
    threads: flags.threads,
    isa: process.env['FDQ_ISA'],
    memory: memoryOptions(flags),
    chat: chatOptions(flags),
    http: httpOptions(flags),
    gracefulShutdownMs: flags['timeout-graceful-shutdown'] * 1000,
    readyFile: flags['ready-file'],
  });
}

function refuseUnsupported(flags: ServeFlagValues): void {
  if (flags['trust-remote-code'] === true) {
    throw new UnsupportedError('usage', '--trust-remote-code is refused: fdq never runs code of a model.', {
      param: 'trust-remote-code',
      suggestions: ['Leave the flag out; supported architectures need no code of the model.'],
    });
  }
  if (!flags['enable-chunked-prefill']) {
    throw new UnsupportedError('usage', '--no-enable-chunked-prefill is not supported: it is always on.', {
      param: 'enable-chunked-prefill',
      suggestions: ['Leave the flag out, or raise --max-num-batched-tokens to the longest prompt.'],
    });
  }
}

/**
 * The MODEL argument is another way to write --model.
 * @throws UserError `usage` when both are given and differ
 */
export function mergeModelArgument(
  flag: string | undefined,
  argument: string | undefined,
): string | undefined {
  if (flag !== undefined && argument !== undefined && flag !== argument) {
    throw new UserError('usage', `Expected one model but received ${argument} and --model ${flag}.`, {
      param: 'model',
      suggestions: ['Name the model once.'],
    });
  }
  return argument ?? flag;
}

function requireModel(model: string | undefined): string {
  if (model === undefined || model === '') {
    throw new UserError('usage', 'Expected a model: a folder or a Hugging Face id.', {
      param: 'model',
      suggestions: ['fdq serve ./my-model', 'fdq serve Qwen/Qwen3-0.6B --quantization wint8'],
    });
  }
  return model;
}

function memoryOptions(flags: ServeFlagValues): MemoryOptions {
  const { 'max-model-len': length, 'max-num-batched-tokens': batched, 'max-num-seqs': seqs } = flags;
  if (batched !== undefined && seqs !== undefined && batched < seqs) {
    throw new UserError(
      'usage',
      `Expected --max-num-batched-tokens to be at least --max-num-seqs (${seqs}) but received ${batched}.`,
      {
        param: 'max-num-batched-tokens',
        suggestions: ['Every sequence needs one token of a step: lower --max-num-seqs.'],
      },
    );
  }
  return defined({
    maxModelLen: length,
    maxNumSeqs: seqs,
    maxNumBatchedTokens: batched,
    memoryUtilization: flags['gpu-memory-utilization'],
    kvCacheBytes: flags['kv-cache-memory'],
    kvCacheDtype: flags['kv-cache-dtype'],
    blockSize: Number(flags['block-size']),
    numBlocksOverride: flags['num-gpu-blocks-override'],
    enablePrefixCaching: flags['enable-prefix-caching'],
    longPrefillTokenThreshold: flags['long-prefill-token-threshold'],
    maxNumPartialPrefills: flags['max-num-partial-prefills'],
  });
}

function chatOptions(flags: ServeFlagValues): ChatOptions {
  return defined({
    chatTemplate: flags['chat-template'],
    generationConfig: flags['generation-config'],
    overrideGenerationConfig: flags['override-generation-config'] ?? {},
    seed: flags.seed,
    maxLogprobs: flags['max-logprobs'],
  });
}

function httpOptions(flags: ServeFlagValues): HttpOptions {
  const apiKeys = (flags['api-key'] ?? []).filter((key) => key !== '');
  checkExposure(flags, apiKeys);
  const waiting = flags['max-waiting-time'];
  return defined({
    host: flags.host,
    port: flags.port,
    servedModelNames: flags['served-model-name'] ?? [],
    apiKeys,
    allowedOrigins: flags['allowed-origins'],
    ssl: sslOptions(flags),
    rootPath: normaliseRootPath(flags['root-path'] ?? ''),
    metricsPort: flags['metrics-port'],
    maxWaitingMs: waiting < 0 ? undefined : waiting * 1000,
    maxConcurrency: flags['max-concurrency'],
    requestLog: requestLog(flags),
  });
}

function requestLog(flags: ServeFlagValues): HttpOptions['requestLog'] {
  if (flags['disable-log-requests'] === true) return 'none';
  return flags['log-requests'] ? 'body' : 'line';
}

/** Names of this machine that no other machine reaches it by. */
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/;

function checkExposure(flags: ServeFlagValues, apiKeys: readonly string[]): void {
  if (LOOPBACK.test(flags.host) || apiKeys.length > 0 || flags['allow-remote-without-key'] === true) return;
  throw new UserError('usage', `--host ${flags.host} lets other machines in, and no --api-key is set.`, {
    param: 'host',
    suggestions: [
      'Set a key: --api-key <secret> or FDQ_API_KEY=<secret>.',
      'Or say that the network is trusted: --allow-remote-without-key.',
      'Or listen on this machine only: --host 127.0.0.1.',
    ],
  });
}

function sslOptions(flags: ServeFlagValues): HttpOptions['ssl'] {
  const { 'ssl-keyfile': keyFile, 'ssl-certfile': certFile } = flags;
  if (keyFile === undefined && certFile === undefined) return undefined;
  if (keyFile === undefined || certFile === undefined) {
    const missing = keyFile === undefined ? 'ssl-keyfile' : 'ssl-certfile';
    throw new UserError(
      'usage',
      `Expected --ssl-keyfile and --ssl-certfile together; --${missing} is missing.`,
      {
        param: missing,
        suggestions: [`Add --${missing} <file.pem>.`],
      },
    );
  }
  return { keyFile, certFile };
}

function normaliseRootPath(rootPath: string): string {
  const trimmed = rootPath.replace(/^\/+|\/+$/g, '');
  return trimmed === '' ? '' : `/${trimmed}`;
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** Leaves out the keys whose value is undefined. */
function defined<T extends object>(object: T): Defined<T> {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as Defined<T>;
}
