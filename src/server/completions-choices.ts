import type { ChoiceDelta, TokenLogprob } from '../engine/types.js';
import { openAiFinish } from './chat-response.js';
import type { CompletionChoice } from './completions-response.js';
import { CompletionLogprobsBuilder, toPromptLogprobs } from './logprobs.js';
import type { CompletionLogprobs, PromptLogprobs, TokenNames } from './logprobs.js';
import type { Job, OutputSink } from './run.js';

export interface CompletionAnswer {
  readonly job: Job;
  readonly names: TokenNames;
  /** Text of each prompt when it is to be repeated. */
  readonly echoes: readonly string[] | null;
  readonly wantsTokenIds: boolean;
  readonly wantsPromptLogprobs: boolean;
}

interface Gathered {
  text: string;
  readonly ids: number[];
  readonly builder: CompletionLogprobsBuilder;
  readonly logprobs: CompletionLogprobs;
  last: ChoiceDelta | null;
  hasEcho: boolean;
}

/** A prompt may have more tokens than a call may have arguments, hence no spread. */
function append(to: CompletionLogprobs, more: CompletionLogprobs): void {
  for (const offset of more.text_offset) to.text_offset.push(offset);
  for (const logprob of more.token_logprobs) to.token_logprobs.push(logprob);
  for (const token of more.tokens) to.tokens.push(token);
  for (const alternatives of more.top_logprobs) to.top_logprobs.push(alternatives);
}

function emptyLogprobs(): CompletionLogprobs {
  return { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
}

/** The choices of /v1/completions: prompt p has the indices p * n ... p * n + n - 1. */
export class CompletionChoices implements OutputSink {
  readonly answer: CompletionAnswer;
  readonly #promptLogprobs: (readonly (TokenLogprob | null)[])[] = [];
  readonly #choices: readonly Gathered[];

  constructor(answer: CompletionAnswer) {
    this.answer = answer;
    const { prompts, params, model } = answer.job;
    this.#choices = Array.from({ length: prompts.length * params.n }, () => ({
      text: '',
      ids: [],
      builder: new CompletionLogprobsBuilder(model.tokenizer, answer.names),
      logprobs: emptyLogprobs(),
      last: null,
      hasEcho: false,
    }));
  }

  get count(): number {
    return this.#choices.length;
  }

  indexOf(prompt: number, delta: ChoiceDelta): number {
    return prompt * this.answer.job.params.n + delta.index;
  }

  onPromptLogprobs(prompt: number, logprobs: readonly (TokenLogprob | null)[]): void {
    this.#promptLogprobs[prompt] = logprobs;
  }

  onDelta(prompt: number, delta: ChoiceDelta): void {
    const index = this.indexOf(prompt, delta);
    const choice = this.#choices[index] as Gathered;
    const { text, logprobs } = this.piece(index, delta);
    choice.text += text;
    choice.ids.push(...delta.tokenIds);
    if (logprobs !== null) append(choice.logprobs, logprobs);
    choice.last = delta;
  }

  /** What `delta` adds to a choice; the prompt comes before the first piece when it is echoed. */
  piece(index: number, delta: ChoiceDelta | null): { text: string; logprobs: CompletionLogprobs | null } {
    const choice = this.#choices[index] as Gathered;
    const { job, echoes } = this.answer;
    const prompt = Math.floor(index / job.params.n);
    const wantsLogprobs = job.params.logprobs !== undefined;
    const logprobs = wantsLogprobs ? emptyLogprobs() : null;
    let text = '';
    if (echoes !== null && !choice.hasEcho) {
      choice.hasEcho = true;
      text += echoes[prompt] as string;
      const ids = job.prompts[prompt] as readonly number[];
      if (logprobs !== null) append(logprobs, choice.builder.build(ids, this.#promptLogprobs[prompt] ?? []));
    }
    if (delta === null) return { text, logprobs };
    if (logprobs !== null) append(logprobs, choice.builder.build(delta.tokenIds, delta.logprobs ?? []));
    return { text: text + delta.text, logprobs };
  }

  all(): readonly CompletionChoice[] {
    const { job, wantsTokenIds, wantsPromptLogprobs, names } = this.answer;
    return this.#choices.map((choice, index) => {
      const prompt = Math.floor(index / job.params.n);
      const rest = this.piece(index, null);
      if (rest.logprobs !== null) append(choice.logprobs, rest.logprobs);
      return {
        index,
        text: rest.text + choice.text,
        logprobs: job.params.logprobs === undefined ? null : choice.logprobs,
        finishReason: openAiFinish(choice.last?.finishReason ?? 'length'),
        stopReason: choice.last?.stopReason ?? null,
        ...(wantsTokenIds
          ? { tokenIds: choice.ids, promptTokenIds: job.prompts[prompt] as readonly number[] }
          : {}),
        ...(wantsPromptLogprobs ? { promptLogprobs: this.#promptLogprobsOf(prompt, names) } : {}),
      };
    });
  }

  #promptLogprobsOf(prompt: number, names: TokenNames): PromptLogprobs {
    return toPromptLogprobs(this.#promptLogprobs[prompt] ?? [], names);
  }
}
