import { existsSync } from 'node:fs';
import path from 'node:path';
import { UserError } from '../../errors.js';
import { loadTokenizer, type Tokenizer } from '../../text/tokenizer.js';
import type { Scenario } from '../report.js';
import { HttpClient } from './http-client.js';
import type { ServeBenchOptions } from './options.js';
import type { TokenSupply } from './random-prompts.js';
import type { PromptRequest } from './record.js';
import { findTokenIds, type ServedModelFacts } from './server-probe.js';

/** One point of the sweep. */
export interface LoadScenario {
  readonly name: string;
  readonly parameters: Scenario['parameters'];
  readonly maxConcurrency: number;
}

/** A scenario for each concurrency; names hold what the figures depend on, besides model and machine. */
export function listScenarios(options: ServeBenchOptions, modelId: string): readonly LoadScenario[] {
  const { dataset, requestRate, burstiness, quantization, backend, endpoint, ignoreEos } = options;
  const { name, random, numPrompts, path: file, seed } = dataset;
  const lengths = name === 'random' ? [`in=${random.inputLen}`, `out=${random.outputLen}`] : [];
  const rate = requestRate === Infinity ? 'inf' : requestRate;
  return options.concurrencies.map((maxConcurrency) => {
    const concurrency = maxConcurrency === Infinity ? 'inf' : maxConcurrency;
    const words = [
      ...(quantization === null ? [] : [quantization.replaceAll(/\s+/g, '')]),
      ...(backend === 'openai-chat' ? ['chat'] : []),
      name,
      ...lengths,
      `n=${numPrompts}`,
      `rate=${rate}`,
      `c=${concurrency}`,
    ];
    const parameters = {
      model: modelId,
      ...(options.url === undefined ? { quantization } : { server: options.url.origin }),
      endpoint,
      dataset: name,
      ...(file === undefined ? {} : { dataset_path: file }),
      ...(name === 'random'
        ? {
            input_tokens: random.inputLen,
            output_tokens: random.outputLen,
            range_ratio: random.rangeRatio,
            prefix_tokens: random.prefixLen,
          }
        : {}),
      num_prompts: numPrompts,
      request_rate: rate,
      burstiness,
      max_concurrency: concurrency,
      ignore_eos: ignoreEos,
      seed,
    };
    return { name: words.join(' '), parameters, maxConcurrency };
  });
}

/** Connections to the server. */
export function connect(options: ServeBenchOptions, url: URL): HttpClient {
  const { headers, timeoutSeconds, insecure } = options;
  return new HttpClient({ url, headers, timeoutSeconds, insecure });
}

/**
 * The tokenizer that was named, else that of a model folder where lengths cannot be known without it.
 * @throws UserError `invalid_tokenizer`
 */
export async function openTokenizer(options: ServeBenchOptions): Promise<Tokenizer | undefined> {
  const { tokenizer, model, dataset } = options;
  if (tokenizer !== undefined) return loadTokenizer(tokenizer);
  const needed =
    (dataset.name === 'random' && dataset.isChat) ||
    (dataset.name === 'sharegpt' && dataset.sharegptOutputLen === undefined);
  if (!needed || model === undefined || !existsSync(path.join(model, 'tokenizer.json'))) return undefined;
  return loadTokenizer(model);
}

/** What prompts are made of; ids that the server knows are asked for only where they are used. */
export async function findTokens(
  { dataset }: ServeBenchOptions,
  {
    tokenizer,
    client,
    model,
    signal,
  }: {
    readonly tokenizer: Tokenizer | undefined;
    readonly client: HttpClient;
    readonly model: string;
    readonly signal: AbortSignal;
  },
): Promise<TokenSupply> {
  if (tokenizer !== undefined) return { tokenizer };
  if (dataset.name !== 'random' || dataset.isChat) return {};
  const serverIds = await findTokenIds(client, model, signal);
  return serverIds === undefined ? {} : { serverIds };
}

/**
 * Refuses random prompts that the server is known to refuse.
 * @throws UserError `usage`
 */
export function checkLength(
  request: PromptRequest,
  model: ServedModelFacts,
  { dataset }: ServeBenchOptions,
): void {
  const { name, random } = dataset;
  if (name !== 'random' || model.maxModelLen === null) return;
  const longest =
    Math.ceil((random.inputLen + random.outputLen) * (1 + random.rangeRatio)) + random.prefixLen;
  if (longest <= model.maxModelLen || request.inputTokens === null) return;
  throw new UserError(
    'usage',
    `Requests take up to ${longest} tokens, and ${model.id} takes ${model.maxModelLen}.`,
    {
      param: 'random-input-len',
      suggestions: [
        `Lower --random-input-len (${random.inputLen}) or --random-output-len (${random.outputLen}).`,
      ],
    },
  );
}
