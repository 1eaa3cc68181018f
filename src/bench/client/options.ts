import { UserError } from '../../errors.js';
import type { DatasetOptions } from './dataset.js';
import type { GoodputLimits } from './figures.js';
import { DOCUMENT_LATENCY_NAMES, type DocumentLatency } from './vllm-document.js';

/** A load test, checked as far as it can be before anything is read or started. */
export interface ServeBenchOptions {
  /** Absent: a server is started for `model`. */
  readonly url?: URL;
  /** Folder or hub id that a server is started for, or with a URL a name in requests. */
  readonly model?: string;
  /** Name in requests; absent: `model` with a URL, else the server's first. */
  readonly servedModelName?: string;
  /** Folder with tokenizer.json to make prompts and count tokens with. */
  readonly tokenizer?: string;
  readonly backend: 'openai' | 'openai-chat';
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly insecure: boolean;
  readonly readySeconds: number;
  readonly timeoutSeconds: number;
  readonly maxRetries: number;
  readonly dataset: DatasetOptions;
  /** Infinity: as soon as there is room. */
  readonly requestRate: number;
  readonly burstiness: number;
  /** One scenario each; Infinity: no limit. */
  readonly concurrencies: readonly number[];
  readonly numWarmups: number;
  readonly repetitions: number;
  readonly goodput: GoodputLimits;
  readonly ignoreEos: boolean;
  readonly extraBody: Readonly<Record<string, unknown>>;
  /** Of a server that is started: its scheme as given, part of scenario names; null: none. */
  readonly quantization: string | null;
  readonly document: DocumentOptions;
}

/** What is written of the run for other programs. */
export interface DocumentOptions {
  readonly isSaved: boolean;
  readonly isDetailed: boolean;
  readonly folder: string;
  readonly fileName?: string;
  readonly label: string;
  readonly latencies: readonly DocumentLatency[];
  readonly percentiles: readonly number[];
  readonly metadata: Readonly<Record<string, string>>;
}

type Optional<T> = T | undefined;

/** Values of BENCH_SERVE_FLAGS. */
export interface ServeBenchValues {
  readonly url?: Optional<string>;
  readonly host?: Optional<string>;
  readonly port?: Optional<number>;
  readonly model?: Optional<string>;
  readonly backend?: Optional<'openai' | 'openai-chat'>;
  readonly endpoint?: Optional<string>;
  readonly 'served-model-name'?: Optional<string>;
  readonly tokenizer?: Optional<string>;
  readonly 'api-key'?: Optional<string>;
  readonly header?: Optional<readonly string[]>;
  readonly insecure?: Optional<boolean>;
  readonly 'ready-check-timeout-sec': number;
  readonly 'request-timeout-sec': number;
  readonly 'max-retries': number;
  readonly 'num-prompts': number;
  readonly 'request-rate': string;
  readonly burstiness: number;
  readonly 'max-concurrency'?: Optional<readonly string[]>;
  readonly 'num-warmups': number;
  readonly repetitions: number;
  readonly seed: number;
  readonly goodput?: Optional<readonly string[]>;
  readonly 'dataset-name': DatasetOptions['name'];
  readonly 'dataset-path'?: Optional<string>;
  readonly 'random-input-len': number;
  readonly 'random-output-len': number;
  readonly 'random-range-ratio': number;
  readonly 'random-prefix-len': number;
  readonly 'sharegpt-output-len'?: Optional<number>;
  readonly 'custom-output-len': number;
  readonly 'disable-shuffle'?: Optional<boolean>;
  readonly 'no-oversample'?: Optional<boolean>;
  readonly 'ignore-eos'?: Optional<boolean>;
  readonly temperature?: Optional<number>;
  readonly 'top-p'?: Optional<number>;
  readonly 'top-k'?: Optional<number>;
  readonly 'min-p'?: Optional<number>;
  readonly 'frequency-penalty'?: Optional<number>;
  readonly 'presence-penalty'?: Optional<number>;
  readonly 'repetition-penalty'?: Optional<number>;
  readonly 'extra-body'?: Optional<Readonly<Record<string, unknown>>>;
  readonly quantization?: Optional<string>;
  readonly 'save-result'?: Optional<boolean>;
  readonly 'save-detailed'?: Optional<boolean>;
  readonly 'result-dir'?: Optional<string>;
  readonly 'result-filename'?: Optional<string>;
  readonly 'percentile-metrics': string;
  readonly 'metric-percentiles': string;
  readonly label?: Optional<string>;
  readonly metadata?: Optional<readonly string[]>;
}

const COMPLETIONS = '/v1/completions';
const CHAT = '/v1/chat/completions';

/**
 * Checks what single flags cannot know.
 * @throws UserError `usage` naming the flag
 */
export function parseServeBench(values: ServeBenchValues): ServeBenchOptions {
  const url = parseTarget(values);
  const { backend, endpoint } = parseRoute(values);
  const concurrencies = parseConcurrencies(values['max-concurrency'] ?? []);
  const isRandom = values['dataset-name'] === 'random';
  const name = values['served-model-name'];
  return {
    ...(url === undefined ? {} : { url }),
    ...(values.model === undefined ? {} : { model: values.model }),
    ...(name === undefined ? {} : { servedModelName: name }),
    ...(values.tokenizer === undefined ? {} : { tokenizer: values.tokenizer }),
    backend,
    endpoint,
    headers: parseHeaders(values),
    insecure: values.insecure ?? false,
    readySeconds: values['ready-check-timeout-sec'],
    timeoutSeconds: values['request-timeout-sec'],
    maxRetries: values['max-retries'],
    dataset: datasetOptions(values, backend),
    requestRate: parseRate(values['request-rate']),
    burstiness: values.burstiness,
    concurrencies,
    numWarmups: values['num-warmups'],
    repetitions: values.repetitions,
    goodput: parseGoodput(values.goodput ?? []),
    ignoreEos: values['ignore-eos'] ?? isRandom,
    extraBody: { ...sampling(values), ...values['extra-body'] },
    quantization: url === undefined ? (values.quantization ?? null) : null,
    document: documentOptions(values, { backend, numScenarios: concurrencies.length }),
  };
}

function usage(flag: string, message: string, suggestion: string): UserError {
  return new UserError('usage', message, { param: flag, suggestions: [suggestion] });
}

function parseTarget({ url, host, port, model }: ServeBenchValues): URL | undefined {
  if (url !== undefined && (host !== undefined || port !== undefined)) {
    throw usage('url', 'Expected --url or --host and --port but received both.', 'Name the server once.');
  }
  const isAddressed = host !== undefined || port !== undefined;
  const text = url ?? (isAddressed ? `http://${bracketed(host ?? '127.0.0.1')}:${port ?? 8000}` : undefined);
  if (text !== undefined) return parseUrl(text);
  if (model !== undefined && model !== '') return undefined;
  throw new UserError('usage', 'Expected a server or a model to serve.', {
    param: 'url',
    suggestions: [
      'fdq bench serve --url http://127.0.0.1:8000',
      'fdq bench serve --model ./my-model -q wint8',
    ],
  });
}

function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw usage(
      'url',
      `Expected --url to be an address but received ${JSON.stringify(text)}.`,
      'Write it in full: --url http://127.0.0.1:8000.',
    );
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw usage(
      'url',
      'Expected --url without a user, a query or a fragment.',
      'Give a key with FDQ_API_KEY=<secret>, other credentials with --header.',
    );
  }
  url.pathname = url.pathname.replace(/\/(v1\/?)?$/, '');
  return url;
}

function parseRoute(values: ServeBenchValues): Pick<ServeBenchOptions, 'backend' | 'endpoint'> {
  const { endpoint } = values;
  const isChatRoute = endpoint?.endsWith('chat/completions') ?? false;
  const backend = values.backend ?? (isChatRoute ? 'openai-chat' : 'openai');
  if (endpoint === undefined) return { backend, endpoint: backend === 'openai-chat' ? CHAT : COMPLETIONS };
  if (!/^\/.*completions$/.test(endpoint) || isChatRoute !== (backend === 'openai-chat')) {
    throw usage(
      'endpoint',
      `Expected --endpoint to be a route of --backend ${backend} but received ${JSON.stringify(endpoint)}.`,
      `openai: ${COMPLETIONS}; openai-chat: ${CHAT}.`,
    );
  }
  return { backend, endpoint };
}

function parseConcurrencies(texts: readonly string[]): readonly number[] {
  const values = texts.map((text) => {
    const value = text === 'inf' ? Infinity : Number(text);
    if ((/^\d+$/.test(text) && value >= 1) || value === Infinity) return value;
    throw usage(
      'max-concurrency',
      `Expected --max-concurrency to be whole numbers above 0, or inf, but received ${JSON.stringify(text)}.`,
      'Write one number, or several: --max-concurrency 1,4,16.',
    );
  });
  return values.length === 0 ? [Infinity] : [...new Set(values)];
}

function parseRate(text: string): number {
  const value = /^inf(inity)?$/i.test(text) ? Infinity : Number(text);
  if (text.trim() !== '' && value > 0) return value;
  throw usage(
    'request-rate',
    `Expected --request-rate to be a number above 0, or inf, but received ${JSON.stringify(text)}.`,
    'Requests a second: --request-rate 2.5.',
  );
}

function parseGoodput(texts: readonly string[]): GoodputLimits {
  const pairs = texts.flatMap((text) => text.split(/\s+/));
  return Object.fromEntries(
    pairs.map((pair) => {
      const [, name, limit] = /^(ttft|tpot|e2el):(\d+(?:\.\d+)?)$/.exec(pair) ?? [];
      if (name !== undefined) return [name, Number(limit)];
      throw usage(
        'goodput',
        `Expected --goodput to be limits like ttft:500 but received ${JSON.stringify(pair)}.`,
        'Limits in milliseconds on ttft, tpot and e2el: --goodput ttft:500 tpot:50.',
      );
    }),
  );
}

function parseHeaders(values: ServeBenchValues): Readonly<Record<string, string>> {
  const pairs = (values.header ?? []).map((text) => parsePair('header', text, /^[!#$%&'*+.^_`|~\w-]+$/));
  const key = values['api-key'];
  const authorization = key === undefined || key === '' ? {} : { authorization: `Bearer ${key}` };
  return {
    ...authorization,
    ...Object.fromEntries(pairs.map(([name, value]) => [name.toLowerCase(), value])),
  };
}

/** Values are not named in errors: they may be secret. */
function parsePair(flag: string, text: string, name: RegExp): readonly [string, string] {
  const at = text.indexOf('=');
  const key = text.slice(0, Math.max(0, at)).trim();
  const value = text.slice(at + 1).trim();
  // eslint-disable-next-line no-control-regex -- what HTTP does not carry
  if (at > 0 && name.test(key) && !/[\0-\x08\n-\x1f\x7f]/.test(value)) return [key, value];
  throw usage(flag, `Expected --${flag} to be NAME=VALUE.`, `Write --${flag} name=value.`);
}

function datasetOptions(values: ServeBenchValues, backend: ServeBenchOptions['backend']): DatasetOptions {
  const { 'dataset-path': path, 'sharegpt-output-len': sharegptOutputLen } = values;
  const customOutputLen = values['custom-output-len'];
  if (customOutputLen === 0) {
    throw usage('custom-output-len', 'Expected --custom-output-len to be above 0, or -1.', 'Give a length.');
  }
  return {
    name: values['dataset-name'],
    ...(path === undefined ? {} : { path }),
    numPrompts: values['num-prompts'],
    seed: values.seed,
    isChat: backend === 'openai-chat',
    random: {
      inputLen: values['random-input-len'],
      outputLen: values['random-output-len'],
      rangeRatio: values['random-range-ratio'],
      prefixLen: values['random-prefix-len'],
    },
    ...(sharegptOutputLen === undefined ? {} : { sharegptOutputLen }),
    customOutputLen,
    shuffle: values['disable-shuffle'] !== true,
    oversample: values['no-oversample'] !== true,
  };
}

const SAMPLING = [
  'temperature',
  'top-p',
  'top-k',
  'min-p',
  'frequency-penalty',
  'presence-penalty',
  'repetition-penalty',
] as const;

function sampling(values: ServeBenchValues): Readonly<Record<string, number>> {
  return Object.fromEntries(
    SAMPLING.flatMap((name) => {
      const value = values[name];
      return value === undefined ? [] : [[name.replaceAll('-', '_'), value] as const];
    }),
  );
}

function documentOptions(
  values: ServeBenchValues,
  { backend, numScenarios }: { readonly backend: string; readonly numScenarios: number },
): DocumentOptions {
  const { 'result-dir': folder, 'result-filename': fileName, 'save-detailed': detailed } = values;
  const isSaved = values['save-result'] ?? false;
  const needing = { 'result-dir': folder, 'result-filename': fileName, 'save-detailed': detailed };
  const unused = Object.entries(needing).find(([, value]) => value !== undefined && value !== false);
  if (!isSaved && unused !== undefined) {
    throw usage(unused[0], `--${unused[0]} needs --save-result.`, 'Add --save-result.');
  }
  if (fileName !== undefined && numScenarios > 1) {
    throw usage(
      'result-filename',
      `--result-filename names one file, and --max-concurrency asks for ${numScenarios}.`,
      'Leave --result-filename out; --result-dir names their folder.',
    );
  }
  return {
    isSaved,
    isDetailed: detailed ?? false,
    folder: folder ?? '.',
    ...(fileName === undefined ? {} : { fileName }),
    label: values.label ?? backend,
    latencies: parseLatencies(values['percentile-metrics']),
    percentiles: parsePercentiles(values['metric-percentiles']),
    metadata: Object.fromEntries((values.metadata ?? []).map((text) => parsePair('metadata', text, /./))),
  };
}

function parseLatencies(text: string): readonly DocumentLatency[] {
  return splitList(text).map((name) => {
    const known = DOCUMENT_LATENCY_NAMES.find((one) => one === name);
    if (known !== undefined) return known;
    throw usage(
      'percentile-metrics',
      `Expected --percentile-metrics to be names of latencies but received ${JSON.stringify(name)}.`,
      `Known: ${DOCUMENT_LATENCY_NAMES.join(', ')}.`,
    );
  });
}

function parsePercentiles(text: string): readonly number[] {
  return splitList(text).map((part) => {
    const value = Number(part);
    if (/^\d+(\.\d+)?$/.test(part) && value <= 100) return value;
    throw usage(
      'metric-percentiles',
      `Expected --metric-percentiles to be numbers from 0 to 100 but received ${JSON.stringify(part)}.`,
      'Write them with commas: --metric-percentiles 50,95,99.9.',
    );
  });
}

function splitList(text: string): readonly string[] {
  return text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
}
