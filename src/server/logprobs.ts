import type { TokenLogprob } from '../engine/types.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** What OpenAI reports for "very unlikely"; JSON has no -Infinity. */
export const LOWEST_LOGPROB = -9999;

export interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
}

export interface ChatLogprobs {
  readonly content: readonly (ChatTokenLogprob & { readonly top_logprobs: readonly ChatTokenLogprob[] })[];
  readonly refusal: null;
}

/** OpenAI's older format, parallel arrays. */
export interface CompletionLogprobs {
  readonly text_offset: number[];
  readonly token_logprobs: (number | null)[];
  readonly tokens: string[];
  readonly top_logprobs: (Readonly<Record<string, number>> | null)[];
}

export type PromptLogprobs = readonly (Readonly<
  Record<string, { readonly logprob: number; readonly rank: number; readonly decoded_token: string }>
> | null)[];

export function finite(logprob: number): number {
  return logprob > LOWEST_LOGPROB ? logprob : LOWEST_LOGPROB;
}

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Names tokens in logprobs. */
export class TokenNames {
  readonly #tokenizer: Tokenizer;
  readonly #asIds: boolean;

  constructor(tokenizer: Tokenizer, asIds: boolean) {
    this.#tokenizer = tokenizer;
    this.#asIds = asIds;
  }

  /**
   * The token's text; a part of a character is written `bytes:\xe4\xbd` (OpenAI's form), so that two of them
   * differ. With `return_tokens_as_token_ids` it is `token_id:<id>`.
   */
  name(id: number): string {
    if (this.#asIds) return `token_id:${id}`;
    const bytes = this.#tokenizer.tokenBytes(id);
    try {
      return strict.decode(bytes);
    } catch {
      return `bytes:${[...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
    }
  }

  bytes(id: number): readonly number[] {
    return [...this.#tokenizer.tokenBytes(id)];
  }
}

/** The chosen token's value, taken from the alternatives when it is among them: harnesses compare the two for equality. */
function chosenLogprob(entry: TokenLogprob): number {
  return finite(entry.top.find((candidate) => candidate.id === entry.id)?.logprob ?? entry.logprob);
}

export function toChatLogprobs(entries: readonly TokenLogprob[], names: TokenNames): ChatLogprobs {
  const describe = (id: number, logprob: number): ChatTokenLogprob => ({
    token: names.name(id),
    logprob: finite(logprob),
    bytes: names.bytes(id),
  });
  return {
    content: entries.map((entry) => ({
      ...describe(entry.id, chosenLogprob(entry)),
      top_logprobs: entry.top.map((candidate) => describe(candidate.id, candidate.logprob)),
    })),
    refusal: null,
  };
}

/** Builds the parallel arrays while tokens arrive; offsets count code points from the start of the choice's text. */
export class CompletionLogprobsBuilder {
  readonly #names: TokenNames;
  readonly #tokenizer: Tokenizer;
  #offset = 0;
  /** Bytes of a character that is not complete; it starts at the current offset. */
  #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(tokenizer: Tokenizer, names: TokenNames) {
    this.#tokenizer = tokenizer;
    this.#names = names;
  }

  /** `entries[i]` belongs to `ids[i]`; null where there is none (the first token of a prompt). */
  build(ids: readonly number[], entries: readonly (TokenLogprob | null)[]): CompletionLogprobs {
    const result: CompletionLogprobs = { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] };
    ids.forEach((id, i) => {
      const entry = entries[i] ?? null;
      result.tokens.push(this.#names.name(id));
      result.text_offset.push(this.#offset);
      result.token_logprobs.push(entry === null ? null : chosenLogprob(entry));
      result.top_logprobs.push(entry === null ? null : this.#alternatives(entry));
      for (const _ of this.#decoder.decode(this.#tokenizer.tokenBytes(id), { stream: true }))
        this.#offset += 1;
    });
    return result;
  }

  #alternatives(entry: TokenLogprob): Readonly<Record<string, number>> {
    const named = new Map<string, number>();
    for (const { id, logprob } of [...entry.top, { id: entry.id, logprob: chosenLogprob(entry) }]) {
      const name = this.#names.name(id);
      // Two ids may be spelled alike; the more likely one keeps the name.
      named.set(name, Math.max(named.get(name) ?? LOWEST_LOGPROB, finite(logprob)));
    }
    return Object.fromEntries(named);
  }
}

/** vLLM's `prompt_logprobs`: a dictionary by token id for each prompt token, null for the first. */
export function toPromptLogprobs(
  entries: readonly (TokenLogprob | null)[],
  names: TokenNames,
): PromptLogprobs {
  return entries.map((entry) => {
    if (entry === null) return null;
    const all = [{ id: entry.id, logprob: chosenLogprob(entry), rank: entry.rank }];
    entry.top.forEach((candidate, i) => {
      if (candidate.id !== entry.id) all.push({ ...candidate, rank: i + 1 });
    });
    return Object.fromEntries(
      all.map(({ id, logprob, rank }) => [
        id,
        { logprob: finite(logprob), rank, decoded_token: names.name(id) },
      ]),
    );
  });
}
