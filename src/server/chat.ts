import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ChoiceDelta, TokenLogprob } from '../engine/types.js';
import { UserError } from '../errors.js';
import { chatCompletion, openAiFinish } from './chat-response.js';
import type { ChatChoice, ResponseHead } from './chat-response.js';
import { ChatStreamSink } from './chat-stream.js';
import type { ServerContext } from './context.js';
import { TokenNames, toChatLogprobs, toPromptLogprobs } from './logprobs.js';
import type { PromptLogprobs } from './logprobs.js';
import { renderPrompt, requireTokens } from './prompts.js';
import { readGeneration } from './read-generation.js';
import { Run } from './run.js';
import type { Job, OutputSink } from './run.js';
import { resolveLogprobs, resolveMaxTokens, resolveSampling, truncatePrompt } from './sampling.js';
import { chatSchema } from './schema-chat.js';
import type { ChatBody } from './schema-chat.js';
import { streamUsage } from './stream-fields.js';

/** What the answer needs besides the engine's outputs. */
export interface ChatAnswer {
  readonly head: ResponseHead;
  readonly names: TokenNames;
  readonly numChoices: number;
  readonly wantsLogprobs: boolean;
  /** Present when the request asked for ids. */
  readonly promptTokenIds: readonly number[] | undefined;
}

function checkLogprobFields(body: ChatBody): void {
  if (body.top_logprobs !== undefined && body.top_logprobs !== 0 && body.logprobs !== true) {
    throw new UserError('invalid_request', 'top_logprobs needs logprobs to be true.', {
      param: 'top_logprobs',
      suggestions: ['Set "logprobs": true.'],
    });
  }
}

async function readJob(body: ChatBody, context: ServerContext): Promise<Job> {
  const model = context.state.requireModel();
  const sampling = { model, maxLogprobs: context.maxLogprobs };
  const wantsLogprobs = body.logprobs === true;
  const logprobs = wantsLogprobs
    ? resolveLogprobs('top_logprobs', body.top_logprobs ?? 0, sampling)
    : undefined;
  const promptLogprobs =
    body.prompt_logprobs === undefined
      ? undefined
      : resolveLogprobs('prompt_logprobs', body.prompt_logprobs, sampling);
  const rendered = await renderPrompt(model, body, context);
  const ids = requireTokens(truncatePrompt(rendered, body.truncate_prompt_tokens, model), 'messages');
  const maxTokens = resolveMaxTokens(model, {
    promptLength: ids.length,
    requested: body.max_completion_tokens ?? body.max_tokens,
    fallback: undefined,
    promptWord: 'messages',
  });
  return {
    model,
    prompts: [ids],
    params: resolveSampling(body, { maxTokens, logprobs, promptLogprobs }, sampling),
    stream: body.stream ?? false,
    cacheSalt: body.cache_salt,
    priority: body.priority,
  };
}

interface Gathered {
  text: string;
  readonly ids: number[];
  readonly logprobs: TokenLogprob[];
  last: ChoiceDelta | null;
}

/** Gathers all choices of an answer that is sent at once. */
class ChatCollector implements OutputSink {
  promptLogprobs: PromptLogprobs | null = null;
  readonly #answer: ChatAnswer;
  readonly #choices: readonly Gathered[];

  constructor(answer: ChatAnswer) {
    this.#answer = answer;
    this.#choices = Array.from({ length: answer.numChoices }, () => ({
      text: '',
      ids: [],
      logprobs: [],
      last: null,
    }));
  }

  onPromptLogprobs(_prompt: number, logprobs: readonly (TokenLogprob | null)[]): void {
    this.promptLogprobs = toPromptLogprobs(logprobs, this.#answer.names);
  }

  onDelta(_prompt: number, delta: ChoiceDelta): void {
    const choice = this.#choices[delta.index] as Gathered;
    choice.text += delta.text;
    choice.ids.push(...delta.tokenIds);
    choice.logprobs.push(...(delta.logprobs ?? []));
    choice.last = delta;
  }

  choices(): readonly ChatChoice[] {
    const { names, wantsLogprobs, promptTokenIds } = this.#answer;
    return this.#choices.map(({ text, ids, logprobs, last }, index) => ({
      index,
      text,
      logprobs: wantsLogprobs ? toChatLogprobs(logprobs, names) : null,
      finishReason: openAiFinish(last?.finishReason ?? 'length'),
      stopReason: last?.stopReason ?? null,
      ...(promptTokenIds === undefined ? {} : { tokenIds: ids }),
    }));
  }
}

/** POST /v1/chat/completions */
export async function handleChat(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): Promise<FastifyReply | Record<string, unknown>> {
  const { body, model, head } = readGeneration(request, context, chatSchema, 'chatcmpl');
  checkLogprobFields(body);
  const job = await readJob(body, context);
  const answer: ChatAnswer = {
    head,
    names: new TokenNames(model.tokenizer, body.return_tokens_as_token_ids ?? false),
    numChoices: job.params.n,
    wantsLogprobs: body.logprobs === true,
    promptTokenIds: body.return_token_ids === true ? job.prompts[0] : undefined,
  };
  const run = new Run(context, job, request, reply);
  if (job.stream) {
    return run.stream((events) => new ChatStreamSink(events, answer, streamUsage(body, run.usage)));
  }
  const collector = new ChatCollector(answer);
  await run.collect(collector);
  return {
    ...chatCompletion(head, collector.choices(), run.usage.get()),
    ...(collector.promptLogprobs === null ? {} : { prompt_logprobs: collector.promptLogprobs }),
    ...(answer.promptTokenIds === undefined ? {} : { prompt_token_ids: answer.promptTokenIds }),
  };
}
