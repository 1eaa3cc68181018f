import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { chooseSchemes } from './choose-schemes.js';
import type { ServeOptions } from './cli/serve-options.js';
import type { ServeUi } from './cli/serve-ui.js';
import { createEngine } from './engine/engine.js';
import { requestOf, type QuantizationFlags } from './load/apply-quantization.js';
import {
  loadModel,
  type LoadedModel,
  type LoadObserver,
  type LoadOptions,
  type PlannedModel,
} from './load/load-model.js';
import { describeShortContext } from './load/memory-plan.js';
import { loadText, type LoadedText } from './load/load-text.js';
import { collectEosIds, readGenerationConfig } from './load/generation-config.js';
import type { KvDataType } from './runtime/addon.js';
import { kvBytesPerToken } from './runtime/kv-layout.js';
import { chooseIsa, loadRuntime } from './runtime/load-addon.js';
import { wrapRunner, type ModelRunner } from './runtime/model-runner.js';
import { startServer, type ServerHandle, type ServerOptions } from './server/server.js';
import { readGenerationDefaults } from './server/state.js';
import { FDQ_VERSION } from './version.js';

/** What the ready line says. */
export interface ReadyInfo {
  readonly servedModelName: string;
  /** The model has a chat template, so /v1/chat/completions answers. */
  readonly chat: boolean;
  readonly scheme: string;
  readonly weightBytes: number;
  /** Positions the KV pool holds. */
  readonly kvTokens: number;
  readonly kvDataType: KvDataType;
  /** Over all layers, scales included. */
  readonly kvBytesPerToken: number;
  readonly maxModelLen: number;
  /** What the model was made for. */
  readonly modelMaxLen: number;
  readonly maxNumSeqs: number;
  readonly loadSeconds: number;
}

export interface RunningServer {
  /** Base URL without `/v1`, with the real port. */
  readonly url: string;
  /** Settles when the model is loaded; rejects when it cannot be. */
  readonly ready: Promise<ReadyInfo>;
  /** Settles when the server has stopped; rejects when the engine died. */
  readonly stopped: Promise<void>;
  /** Refuses new requests and lets running ones finish for at most `graceMs`. */
  shutdown(graceMs: number): Promise<void>;
  /** Ends running requests now. */
  abort(): Promise<void>;
}

/** Share of the loading bar each phase ends at; reading and quantizing is nearly all of it. */
const PROGRESS = { locate: 0.02, plan: 0.05, quantize: 0.9, build: 0.97, warm_up: 1 } as const;
/** Prompt tokens that may queue, in full contexts: past it a request would wait for minutes. */
const MAX_WAITING_CONTEXTS = 16;

/**
 * Binds the port, then loads the model in the background.
 * @throws UserError `port_in_use`, `addon_unavailable`, `unknown_scheme`, `invalid_config`
 */
export async function serve(options: ServeOptions, ui: ServeUi): Promise<RunningServer> {
  // Here as well as when loading: a mistyped scheme must not cost a download.
  requestOf(quantizationFlags(options));
  const { addon, onnxruntime } = loadRuntime();
  const build = {
    version: FDQ_VERSION,
    onnxruntime: onnxruntime.version,
    isa: chooseIsa(addon, options.isa),
  };
  const name = options.http.servedModelNames[0] ?? nameOf(options.model);
  const server = await startServer(serverOptions(options, ui, { name, build }));
  return new ModelServer(options, ui, server, name).start();
}

class ModelServer implements RunningServer {
  readonly url: string;
  readonly stopped: Promise<void>;
  ready: Promise<ReadyInfo>;
  readonly #options: ServeOptions;
  readonly #ui: ServeUi;
  readonly #server: ServerHandle;
  readonly #name: string;
  readonly #loading = new AbortController();
  #settleStopped: { resolve: () => void; reject: (reason: unknown) => void };
  #close: (() => Promise<void>) | undefined;
  #closing: Promise<void> | undefined;
  #saving: Promise<void> | undefined;

  constructor(options: ServeOptions, ui: ServeUi, server: ServerHandle, name: string) {
    this.#options = options;
    this.#ui = ui;
    this.#server = server;
    this.#name = name;
    this.url = server.url;
    this.#settleStopped = { resolve: () => undefined, reject: () => undefined };
    this.stopped = new Promise((resolve, reject) => {
      this.#settleStopped = { resolve, reject };
    });
    this.stopped.catch(() => undefined);
    this.ready = Promise.reject(new Error('not started'));
    this.ready.catch(() => undefined);
  }

  start(): this {
    this.ready = this.#load();
    this.ready.catch(() => undefined);
    return this;
  }

  async shutdown(graceMs: number): Promise<void> {
    this.#loading.abort();
    await this.#server.drain(graceMs);
    await this.abort();
  }

  abort(): Promise<void> {
    this.#loading.abort();
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async #stop(): Promise<void> {
    await this.ready.catch(() => undefined);
    await this.#close?.();
    await this.#server.close();
    this.#settleStopped.resolve();
  }

  async #load(): Promise<ReadyInfo> {
    const start = performance.now();
    // Once before the weights: a folder without generation_config.json must not cost the time of loading them.
    await readGenerationConfig({ generationConfig: undefined }, this.#options.chat);
    const [loaded, text] = await this.#loadParts();
    const generation = await readGenerationConfig(loaded.checkpoint, this.#options.chat);
    const { memory } = loaded;
    const engineLimits = this.#options.memory;
    const engine = createEngine(this.#watch(loaded.runner), {
      scheme: loaded.scheme,
      executionProvider: 'cpu',
      maxNumSeqs: memory.maxNumSeqs,
      maxNumBatchedTokens: memory.maxBatchedTokens,
      maxModelLen: memory.maxModelLen,
      maxWaiting: this.#options.http.maxConcurrency,
      maxWaitingTokens: MAX_WAITING_CONTEXTS * memory.maxModelLen,
      enablePrefixCaching: engineLimits.enablePrefixCaching,
      eosTokenIds: collectEosIds(loaded.checkpoint.config, generation, text.tokenizer.eosId),
      createTextStream: text.createTextStream,
      observer: this.#server.metrics.observer,
      longPrefillTokenThreshold: engineLimits.longPrefillTokenThreshold,
      ...(engineLimits.maxNumPartialPrefills === undefined
        ? {}
        : { maxNumPartialPrefills: engineLimits.maxNumPartialPrefills }),
    });
    this.#close = async () => {
      await this.#saving;
      await engine.close();
      await loaded.runner.close();
    };
    this.#loading.signal.throwIfAborted();
    const { tokenizer, renderer } = text;
    const { seed } = this.#options.chat;
    const defaults = {
      ...readGenerationDefaults(generation),
      ...(seed === undefined ? {} : { seed: BigInt(seed) }),
    };
    this.#reportLoad(loaded);
    this.#server.setReady({ engine, tokenizer, renderer, defaults });
    this.#saving = this.#saveToCache(loaded, () => engine.stats().running > 0);
    return {
      servedModelName: this.#name,
      chat: tokenizer.chatTemplates.size > 0 || this.#options.chat.chatTemplate !== undefined,
      scheme: loaded.scheme,
      weightBytes: loaded.weightBytes,
      kvTokens: memory.numBlocks * loaded.runner.blockSize,
      kvDataType: loaded.arithmetic.kv,
      kvBytesPerToken: kvBytesPerToken(loaded.decoder, loaded.arithmetic.kv),
      maxModelLen: memory.maxModelLen,
      modelMaxLen: loaded.decoder.maxPositions,
      maxNumSeqs: memory.maxNumSeqs,
      loadSeconds: (performance.now() - start) / 1000,
    };
  }

  /** Weights and tokenizer, at the same time; a wrong flag is found before, for a large tokenizer takes seconds. */
  async #loadParts(): Promise<readonly [LoadedModel, LoadedText]> {
    let text: Promise<LoadedText> | undefined;
    let folder = '';
    const broken = new AbortController();
    const observer: LoadObserver = {
      phase: (name, state, detail) => {
        this.#ui.phase(name, state, detail);
        if (state !== 'done') return;
        this.#server.setProgress(name, PROGRESS[name]);
        if (name !== 'plan') return;
        text = loadText(this.#options.tokenizer ?? folder, this.#options.chat.chatTemplate);
        text.catch((error: unknown) => broken.abort(error));
      },
      warn: (line) => this.#ui.warn(line),
      located: ({ dir }) => (folder = dir),
      planned: (planned) => this.#warnOfShortContext(planned),
    };
    const signal = AbortSignal.any([this.#loading.signal, broken.signal]);
    const loaded = await loadModel(loadOptions(this.#options, signal, this.#ui), observer).catch(
      async (error: unknown) => {
        // The tokenizer's failure stopped the loading: it is the reason, not the interruption.
        if (broken.signal.aborted && !this.#loading.signal.aborted) await text;
        throw error;
      },
    );
    try {
      return [loaded, await (text as Promise<LoadedText>)];
    } catch (error) {
      await loaded.runner.close();
      throw error;
    }
  }

  #warnOfShortContext({ memory, decoder, arithmetic }: PlannedModel): void {
    const warning = describeShortContext(memory, {
      ...memoryRequest(this.#options),
      modelMaxLen: decoder.maxPositions,
      kvBytesPerToken: kvBytesPerToken(decoder, arithmetic.kv),
    });
    if (warning !== undefined) this.#ui.warn(warning);
  }

  /** Keeps the weights for the next start while requests are served; a failure is no reason to stop. */
  async #saveToCache({ saveToCache }: LoadedModel, isBusy: () => boolean): Promise<void> {
    const { signal } = this.#loading;
    try {
      const outcome = await saveToCache?.({ isBusy, signal });
      if (outcome !== undefined) this.#ui.info(outcome);
    } catch (error) {
      if (signal.aborted) return;
      this.#ui.warn(
        `The quantized weights were not kept: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }

  #reportLoad({ seconds, scheme, weightBytes }: LoadedModel): void {
    const { metrics } = this.#server;
    metrics.setLoadSeconds('read', seconds.locate + seconds.plan);
    metrics.setLoadSeconds('quantize', seconds.quantize);
    metrics.setLoadSeconds('build', seconds.build);
    metrics.setLoadSeconds('warmup', seconds.warm_up);
    metrics.setWeightBytes(scheme, weightBytes);
  }

  /** A step that fails ends the engine, and with it the server. */
  #watch(runner: ModelRunner): ModelRunner {
    const onFailure = (error: unknown): never => {
      this.#server.setDead();
      this.#settleStopped.reject(error);
      throw error;
    };
    return wrapRunner(runner, { step: (batch) => runner.step(batch).catch(onFailure) });
  }
}

function nameOf(model: string): string {
  return path.basename(path.resolve(model.replace(/@[^@/]*$/, '')));
}

function quantizationFlags({
  quantization,
  quantizationConfig,
  quantizeLmHead,
  quantizeEmbeddings,
  memory,
}: ServeOptions): QuantizationFlags & Pick<LoadOptions, 'kvCacheDtype'> {
  return {
    ...(quantization === undefined ? {} : { quantization }),
    ...(quantizationConfig === undefined ? {} : { quantizationConfig }),
    ...(quantizeLmHead === undefined ? {} : { quantizeLmHead }),
    ...(quantizeEmbeddings === undefined ? {} : { quantizeEmbeddings }),
    kvCacheDtype: memory.kvCacheDtype,
  };
}

function loadOptions(options: ServeOptions, signal: AbortSignal, ui: ServeUi): LoadOptions {
  const { auto, cache, threads = os.availableParallelism() } = options;
  const chooser = {
    threads,
    signal,
    onProgress: (doneBytes: number, totalBytes: number) =>
      ui.phase('plan', 'progress', { doneBytes, totalBytes, message: 'measuring schemes' }),
    info: (line: string) => ui.info(line),
  };
  return {
    model: options.model,
    locate: {
      offline: options.offline,
      signal,
      ...(options.revision === undefined ? {} : { revision: options.revision }),
    },
    ...quantizationFlags(options),
    ...(auto === undefined
      ? {}
      : { chooseQuantization: chooseSchemes({ ...chooser, auto, flags: quantizationFlags(options) }) }),
    ...(cache === undefined ? {} : { cache }),
    dtype: options.dtype,
    threads,
    isa: options.isa,
    memory: memoryRequest(options),
    signal,
  };
}

function memoryRequest({ memory }: ServeOptions): LoadOptions['memory'] {
  return {
    utilization: memory.memoryUtilization,
    ...(memory.kvCacheBytes === undefined ? {} : { kvCacheBytes: memory.kvCacheBytes }),
    ...(memory.numBlocksOverride === undefined ? {} : { numBlocks: memory.numBlocksOverride }),
    ...(memory.maxModelLen === undefined ? {} : { maxModelLen: memory.maxModelLen }),
    ...(memory.maxNumSeqs === undefined ? {} : { maxNumSeqs: memory.maxNumSeqs }),
    ...(memory.maxNumBatchedTokens === undefined ? {} : { maxBatchedTokens: memory.maxNumBatchedTokens }),
  };
}

function serverOptions(
  { http, chat }: ServeOptions,
  ui: ServeUi,
  { name, build }: { readonly name: string; readonly build: ServerOptions['build'] },
): ServerOptions {
  return {
    host: http.host,
    port: http.port,
    servedModelNames: http.servedModelNames.length > 0 ? http.servedModelNames : [name],
    build,
    apiKeys: http.apiKeys,
    // The flags were checked already: a public address has a key or was allowed to have none.
    allowUnauthenticated: true,
    rootPath: http.rootPath,
    maxLogprobs: chat.maxLogprobs,
    maxConcurrency: http.maxConcurrency,
    ...(http.allowedOrigins === undefined ? {} : { allowedOrigins: http.allowedOrigins }),
    ...(http.metricsPort === undefined ? {} : { metricsPort: http.metricsPort }),
    ...(http.maxWaitingMs === undefined ? {} : { maxWaitingMs: http.maxWaitingMs }),
    ...(http.ssl === undefined
      ? {}
      : { ssl: { key: readFileSync(http.ssl.keyFile), cert: readFileSync(http.ssl.certFile) } }),
    ...(http.requestLog === 'none' ? {} : { logger: ui.log, logBodies: http.requestLog === 'body' }),
  };
}
