import { UserError } from '../../errors.js';
import { readCustom, readShareGpt, type DatasetEntry } from './dataset-file.js';
import { RandomSource } from './random-source.js';
import { makeRandomRequests, type RandomLengths, type TokenSupply } from './random-prompts.js';
import type { PromptRequest } from './record.js';

export interface DatasetOptions {
  readonly name: 'random' | 'sharegpt' | 'custom';
  /** Of sharegpt and custom. */
  readonly path?: string;
  readonly numPrompts: number;
  readonly seed: number;
  readonly isChat: boolean;
  readonly random: RandomLengths;
  /** Absent: as long as the answers of the file. */
  readonly sharegptOutputLen?: number;
  /** -1: what each line says. */
  readonly customOutputLen: number;
  readonly shuffle: boolean;
  /** Repeat prompts of a file that has too few of them. */
  readonly oversample: boolean;
}

/** A data set whose file has been read and checked. */
export interface Dataset {
  readonly options: DatasetOptions;
  /** Empty for random prompts. */
  readonly entries: readonly DatasetEntry[];
}

/**
 * Reads and checks the file of a data set, before any server is asked.
 * @throws UserError `usage` for flags that do not fit together, `invalid_dataset` naming file and line
 */
export function openDataset(options: DatasetOptions): Dataset {
  const { name, path, isChat } = options;
  if (name === 'random') {
    if (path === undefined) return { options, entries: [] };
    throw new UserError('usage', 'Expected no --dataset-path for random prompts.', {
      param: 'dataset-path',
      suggestions: ['Say what the file is: --dataset-name sharegpt or --dataset-name custom.'],
    });
  }
  if (path === undefined) {
    throw new UserError('usage', `--dataset-name ${name} needs a file.`, {
      param: 'dataset-path',
      suggestions: ['Add --dataset-path <file>.'],
    });
  }
  return { options, entries: name === 'sharegpt' ? readShareGpt(path) : readCustom(path, isChat) };
}

/**
 * The requests of one run. The same options, seed and tokens give the same requests.
 * @throws UserError `usage` where a length needs a tokenizer that is not there, `invalid_dataset` for too few prompts
 */
export function makeRequests({ options, entries }: Dataset, tokens: TokenSupply): readonly PromptRequest[] {
  const random = new RandomSource(options.seed);
  if (options.name === 'random') {
    return makeRandomRequests(options.numPrompts, options.random, { random, tokens, isChat: options.isChat });
  }
  const ordered = options.shuffle ? random.shuffle(entries) : entries;
  const requests: PromptRequest[] = [];
  for (const entry of ordered) {
    if (requests.length === options.numPrompts) break;
    const request = toRequest(entry, options, tokens);
    if (request !== undefined) requests.push(request);
  }
  return fillUp(requests, options, random);
}

function toRequest(
  entry: DatasetEntry,
  options: DatasetOptions,
  tokens: TokenSupply,
): PromptRequest | undefined {
  const { prompt } = entry;
  const inputTokens = typeof prompt === 'string' ? (tokens.tokenizer?.encode(prompt).length ?? null) : null;
  const request = { prompt, inputTokens, maxTokens: outputLength(entry, options, tokens) };
  return options.name === 'sharegpt' && isUnusual(request, options) ? undefined : request;
}

function outputLength(entry: DatasetEntry, options: DatasetOptions, { tokenizer }: TokenSupply): number {
  if (options.name === 'custom') {
    if (options.customOutputLen !== -1) return options.customOutputLen;
    if (entry.outputTokens !== undefined) return entry.outputTokens;
    throw new UserError('usage', '--custom-output-len -1 needs "output_tokens" in every line.', {
      param: 'custom-output-len',
      suggestions: ['Give --custom-output-len <tokens>.'],
    });
  }
  if (options.sharegptOutputLen !== undefined) return options.sharegptOutputLen;
  if (tokenizer !== undefined) return tokenizer.encode(entry.completion ?? '').length;
  throw new UserError('usage', 'The answers of the file are counted by a tokenizer, and none is given.', {
    param: 'sharegpt-output-len',
    suggestions: ['Give --tokenizer <model folder>.', 'Or give --sharegpt-output-len <tokens>.'],
  });
}

const MIN_TOKENS = 4;
const MAX_INPUT_TOKENS = 1024;
const MAX_TOTAL_TOKENS = 2048;

/** Conversations that vLLM's client leaves out, so that both send the same kind of load. */
function isUnusual(
  { inputTokens, maxTokens }: PromptRequest,
  { sharegptOutputLen }: DatasetOptions,
): boolean {
  if (sharegptOutputLen === undefined && maxTokens < MIN_TOKENS) return true;
  if (inputTokens === null) return false;
  return (
    inputTokens < MIN_TOKENS || inputTokens > MAX_INPUT_TOKENS || inputTokens + maxTokens > MAX_TOTAL_TOKENS
  );
}

function fillUp(
  requests: readonly PromptRequest[],
  { numPrompts, oversample, path = '' }: DatasetOptions,
  random: RandomSource,
): readonly PromptRequest[] {
  if (requests.length === 0) {
    throw new UserError('invalid_dataset', `${path} has no prompt that can be used.`, {
      param: 'dataset-path',
      suggestions: ['Conversations of 4 to 1024 prompt tokens and two turns can be used.'],
    });
  }
  if (!oversample) return requests;
  const missing = Array.from(
    { length: numPrompts - requests.length },
    () => requests[random.integer(0, requests.length - 1)] as PromptRequest,
  );
  return [...requests, ...missing];
}
