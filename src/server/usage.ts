/** Token counts of one response. */
export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
  readonly completion_tokens_details: { readonly reasoning_tokens: number };
}

/** Counts while outputs arrive. A prompt counts once, however many choices share it. */
export class UsageCounter {
  readonly promptTokens: number;
  completionTokens = 0;
  cachedTokens = 0;

  constructor(promptTokens: number) {
    this.promptTokens = promptTokens;
  }

  get(): Usage {
    return {
      prompt_tokens: this.promptTokens,
      completion_tokens: this.completionTokens,
      total_tokens: this.promptTokens + this.completionTokens,
      prompt_tokens_details: { cached_tokens: this.cachedTokens },
      completion_tokens_details: { reasoning_tokens: 0 },
    };
  }
}
