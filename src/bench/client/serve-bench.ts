import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';
import type { Tokenizer } from '../../text/tokenizer.js';
import { scheduleArrivals } from './arrivals.js';
import { startChildServer, type ChildServer, type ChildServerOptions } from './child-server.js';
import { makeRequests, openDataset, type Dataset } from './dataset.js';
import { computeFigures, type LoadFigures } from './figures.js';
import { type HttpClient } from './http-client.js';
import { REAL_CLOCK, runLoad } from './load.js';
import { measureLoopLag } from './loop-lag.js';
import type { ServeBenchOptions } from './options.js';
import { RandomSource } from './random-source.js';
import type { TokenSupply } from './random-prompts.js';
import {
  checkLength,
  connect,
  findTokens,
  listScenarios,
  openTokenizer,
  type LoadScenario,
} from './serve-setup.js';
import { failureOf, type PromptRequest } from './record.js';
import { Requester } from './requester.js';
import {
  findModel,
  findRuntime,
  NotReadyError,
  retryUntilReady,
  type ServedModelFacts,
  type ServerRuntime,
} from './server-probe.js';

export type BenchStep = 'server' | 'warm_up' | 'measure';

/** How a load test talks to whoever started it. */
export interface ServeBenchUi {
  step(step: BenchStep, state: 'start' | 'progress' | 'done', message?: string): void;
  warn(line: string): void;
}

export interface OpenOptions {
  readonly ui: ServeBenchUi;
  readonly signal: AbortSignal;
  /** How a server is started where the options name no URL. */
  readonly server: Omit<ChildServerOptions, 'onLine' | 'signal'>;
}

interface Parts {
  readonly dataset: Dataset;
  readonly tokenizer: Tokenizer | undefined;
  readonly child: ChildServer | undefined;
  readonly url: URL;
  readonly client: HttpClient;
  readonly model: ServedModelFacts;
  readonly runtime: ServerRuntime;
  readonly tokens: TokenSupply;
}

/** A server under test, whoever started it, and the requests that are sent to it. */
export class ServeBench {
  readonly scenarios: readonly LoadScenario[];
  readonly model: ServedModelFacts;
  readonly runtime: ServerRuntime;
  readonly #options: ServeBenchOptions;
  readonly #parts: Parts;
  readonly #open: OpenOptions;
  readonly #requester: Requester;
  #numRuns = 0;

  private constructor(options: ServeBenchOptions, parts: Parts, open: OpenOptions) {
    this.#options = options;
    this.#parts = parts;
    this.#open = open;
    this.model = parts.model;
    this.runtime = parts.runtime;
    this.scenarios = listScenarios(options, parts.model.id);
    this.#requester = new Requester({
      client: parts.client,
      isChat: options.dataset.isChat,
      endpoint: options.endpoint,
      model: parts.model.id,
      ignoreEos: options.ignoreEos,
      extraBody: options.extraBody,
      maxRetries: options.maxRetries,
      now: () => REAL_CLOCK.now(),
    });
  }

  /**
   * Reads the data set, then starts the server or finds it, and waits for it.
   * @throws UserError `usage`, `invalid_dataset`, `server_unreachable`, `aborted`
   */
  static async open(options: ServeBenchOptions, open: OpenOptions): Promise<ServeBench> {
    const dataset = openDataset(options.dataset);
    const tokenizer = await openTokenizer(options);
    // Lengths that need a tokenizer are missed before a server is started.
    if (options.dataset.name !== 'random') makeRequests(dataset, { ...(tokenizer && { tokenizer }) });
    open.ui.step('server', 'start');
    const { url, child } = await findServer(options, open);
    const client = connect(options, url);
    try {
      const { servedModelName, model: named, readySeconds: seconds } = options;
      const wanted = servedModelName ?? (child === undefined ? named : undefined);
      const model = await retryUntilReady(() => findModel(client, wanted, open.signal), {
        seconds,
        url,
        signal: open.signal,
      });
      const { signal } = open;
      const tokens = await findTokens(options, { tokenizer, client, model: model.id, signal });
      const runtime = await findRuntime(client, signal);
      const parts = { dataset, tokenizer, child, url, client, model, runtime, tokens };
      const bench = new ServeBench(options, parts, open);
      await bench.#getReady();
      open.ui.step('server', 'done', model.id);
      return bench;
    } catch (error) {
      client.close();
      await Promise.all([child?.stop(), tokenizer?.close()]);
      open.signal.throwIfAborted();
      throw error;
    }
  }

  /** Sends the requests of one run of a scenario; what Ctrl-C left undone is not in the figures. */
  async measure(scenario: LoadScenario): Promise<LoadFigures> {
    const { requestRate: rate, burstiness, goodput } = this.#options;
    const { ui, signal } = this.#open;
    const run = this.#numRuns++;
    const requests = this.#makeRequests(run);
    const random = new RandomSource(this.#seedOf(run) ^ ARRIVAL_SEED);
    const total = requests.length;
    const stopLag = measureLoopLag();
    const result = await runLoad({
      requests,
      arrivalsMs: rate === Infinity ? null : scheduleArrivals({ count: total, rate, burstiness, random }),
      maxConcurrency: scenario.maxConcurrency,
      clock: REAL_CLOCK,
      send: (request, scheduledMs, aborted) => this.#requester.send(request, scheduledMs, aborted),
      signal,
      onProgress: (done) => ui.step('measure', 'progress', `${scenario.name}: ${done} of ${total} requests`),
    });
    const { tokenizer } = this.#parts;
    return computeFigures(result, {
      requests,
      goodput,
      ...(tokenizer && { countTokens: (text: string) => tokenizer.encode(text, false).length }),
      lagMs: stopLag(),
    });
  }

  /** Sends requests that are not measured. */
  async warmUp(): Promise<void> {
    const { numWarmups } = this.#options;
    if (numWarmups === 0) return;
    const { ui, signal } = this.#open;
    ui.step('warm_up', 'start');
    const requests = this.#makeRequests(WARM_UP_RUN, numWarmups);
    const { records } = await runLoad({
      requests,
      arrivalsMs: null,
      maxConcurrency: Math.max(...this.scenarios.map(({ maxConcurrency }) => maxConcurrency)),
      clock: REAL_CLOCK,
      send: (request, scheduledMs, aborted) => this.#requester.send(request, scheduledMs, aborted),
      signal,
    });
    const failed = records.map(failureOf).find((failure) => failure !== undefined);
    if (failed !== undefined) ui.warn(`A warm-up request failed: ${failed.kind}, ${failed.message}`);
    ui.step('warm_up', 'done', counted(numWarmups, 'request'));
  }

  /** Ends connections, and the server if it was started here. */
  async close(): Promise<void> {
    const { client, child, tokenizer } = this.#parts;
    client.close();
    await Promise.all([child?.stop(), tokenizer?.close()]);
  }

  async #getReady(): Promise<void> {
    const { readySeconds: seconds } = this.#options;
    const [probe] = this.#makeRequests(PROBE_RUN, 1);
    if (probe !== undefined) checkLength(probe, this.model, this.#options);
    if (seconds === 0 || probe === undefined) return;
    const { signal } = this.#open;
    const attempt = async (): Promise<void> => {
      const failure = failureOf(await this.#requester.send(probe, null, signal));
      signal.throwIfAborted();
      if (failure === undefined) return;
      const isTemporary = ['refused', 'reset', 'status 429', 'status 502', 'status 503'].includes(
        failure.kind,
      );
      const message = `${failure.kind}, ${failure.message}`;
      if (isTemporary) throw new NotReadyError(message);
      throw new UserError('requests_failed', `The first request failed: ${message}`, {
        suggestions: ['Check --endpoint, --served-model-name and the flags that go into requests.'],
      });
    };
    await retryUntilReady(attempt, { seconds, url: this.#parts.url, signal });
  }

  /** Every run has prompts of its own: a server that keeps prefixes would answer those of the last run faster. */
  #makeRequests(run: number, count?: number): readonly PromptRequest[] {
    const { dataset, tokens } = this.#parts;
    const { options, entries } = dataset;
    const numPrompts = count ?? options.numPrompts;
    return makeRequests({ options: { ...options, seed: this.#seedOf(run), numPrompts }, entries }, tokens);
  }

  #seedOf(run: number): number {
    return this.#options.dataset.seed + run * RUN_SEEDS;
  }
}

async function findServer(
  { url }: ServeBenchOptions,
  { server, ui, signal }: OpenOptions,
): Promise<{ readonly url: URL; readonly child: ChildServer | undefined }> {
  if (url !== undefined) return { url, child: undefined };
  const onLine = (line: string): void => ui.step('server', 'progress', line);
  const child = await startChildServer({ ...server, signal, onLine });
  return { url: child.url, child };
}

/** Far enough apart that the next seed of a user is not the next run of this one. */
const RUN_SEEDS = 0x9e3779b1;
const ARRIVAL_SEED = 0x5bd1e995;
const WARM_UP_RUN = -1;
const PROBE_RUN = -2;
