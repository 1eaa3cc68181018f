import type { FastifyReply, FastifyRequest } from 'fastify';
import { counted } from '../counted.js';
import { UserError } from '../errors.js';
import { CompletionChoices } from './completions-choices.js';
import { CompletionStreamSink } from './completions-stream.js';
import { textCompletion } from './completions-response.js';
import type { ServerContext } from './context.js';
import { TokenNames } from './logprobs.js';
import { requireTokens } from './prompts.js';
import { readGeneration } from './read-generation.js';
import { Run } from './run.js';
import type { Job } from './run.js';
import {
  encodePrompt,
  resolveLogprobs,
  resolveMaxTokens,
  resolveSampling,
  truncatePrompt,
} from './sampling.js';
import { completionsSchema, readPrompts } from './schema-completions.js';
import type { CompletionsBody, Prompt } from './schema-completions.js';
import { MAX_CHOICES } from './schema-fields.js';
import type { ServedModel } from './state.js';
import { streamUsage } from './stream-fields.js';

/** OpenAI's default of /v1/completions. */
const DEFAULT_MAX_TOKENS = 16;
/** Sequences one request may ask for: prompts times n. */
const MAX_SEQUENCES = 4096;

async function promptIds(
  prompt: Prompt,
  body: CompletionsBody,
  model: ServedModel,
): Promise<readonly number[]> {
  const ids =
    'ids' in prompt
      ? prompt.ids
      : await encodePrompt(model, prompt.text, {
          addSpecialTokens: body.add_special_tokens ?? true,
          promptWord: 'prompt',
        });
  return requireTokens(truncatePrompt(ids, body.truncate_prompt_tokens, model), 'prompt');
}

function requestedMaxTokens(body: CompletionsBody): number | undefined {
  const requested = body.max_tokens ?? body.max_completion_tokens;
  if (requested !== 0 || body.echo === true) return requested;
  throw new UserError('invalid_request', 'max_tokens 0 generates nothing.', {
    param: 'max_tokens',
    suggestions: ['Set "echo": true to score the prompt, or max_tokens to at least 1.'],
  });
}

async function readJob(
  body: CompletionsBody,
  prompts: readonly Prompt[],
  context: ServerContext,
): Promise<Job> {
  const model = context.state.requireModel();
  const sampling = { model, maxLogprobs: context.maxLogprobs };
  const logprobs =
    body.logprobs === undefined ? undefined : resolveLogprobs('logprobs', body.logprobs, sampling);
  const asked = body.prompt_logprobs;
  const promptAsked = asked === undefined ? undefined : resolveLogprobs('prompt_logprobs', asked, sampling);
  const echoed = body.echo === true ? logprobs : undefined;
  const promptLogprobs =
    promptAsked === undefined && echoed === undefined ? undefined : Math.max(promptAsked ?? 0, echoed ?? 0);
  const idLists = await Promise.all(prompts.map((prompt) => promptIds(prompt, body, model)));
  const requested = requestedMaxTokens(body);
  const budgets = idLists.map((ids) =>
    resolveMaxTokens(model, {
      promptLength: ids.length,
      requested,
      fallback: DEFAULT_MAX_TOKENS,
      promptWord: 'prompt',
    }),
  );
  const maxTokens = Math.max(...budgets);
  return {
    model,
    prompts: idLists,
    budgets,
    params: resolveSampling(body, { maxTokens, logprobs, promptLogprobs }, sampling),
    stream: body.stream ?? false,
    cacheSalt: body.cache_salt,
    priority: body.priority,
  };
}

function checkSequences(numPrompts: number, n: number): void {
  if (numPrompts * n <= MAX_SEQUENCES) return;
  throw new UserError(
    'invalid_request',
    `${counted(numPrompts, 'prompt')} times n = ${n} is more than ${MAX_SEQUENCES}.`,
    {
      param: 'n',
      suggestions: [`Send fewer prompts in one request, or an n below ${MAX_CHOICES}.`],
    },
  );
}

/** POST /v1/completions */
export async function handleCompletions(
  request: FastifyRequest,
  reply: FastifyReply,
  context: ServerContext,
): Promise<FastifyReply | Record<string, unknown>> {
  const { body, model, head } = readGeneration(request, context, completionsSchema, 'cmpl');
  const prompts = readPrompts(body.prompt, model.engine.info.vocabSize);
  checkSequences(prompts.length, body.n ?? 1);
  const job = await readJob(body, prompts, context);
  const choices = new CompletionChoices({
    job,
    names: new TokenNames(model.tokenizer, body.return_tokens_as_token_ids ?? false),
    echoes: body.echo === true ? prompts.map((prompt, i) => echoOf(prompt, job, i)) : null,
    wantsTokenIds: body.return_token_ids ?? false,
    wantsPromptLogprobs: body.prompt_logprobs !== undefined,
  });
  const run = new Run(context, job, request, reply);
  if (job.stream) {
    return run.stream(
      (events) => new CompletionStreamSink(events, head, choices, streamUsage(body, run.usage)),
    );
  }
  await run.collect(choices);
  return textCompletion(head, choices.all(), run.usage.get());
}

function echoOf(prompt: Prompt, job: Job, index: number): string {
  if ('text' in prompt) return prompt.text;
  return job.model.tokenizer.decode(job.prompts[index] as readonly number[], job.params.skipSpecialTokens);
}
