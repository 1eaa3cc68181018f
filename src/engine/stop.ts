import type { FinishReason, SamplingParams, TextStream } from './types.js';

/** Finds one string in text that arrives in pieces (Knuth, Morris and Pratt 1977). */
class StringMatcher {
  private readonly failure: Int32Array; // [length]: longest border of each prefix
  /** Characters of `needle` that the text so far ends with. */
  matched = 0;

  constructor(readonly needle: string) {
    this.failure = new Int32Array(needle.length);
    for (let end = 1, border = 0; end < needle.length; end++) {
      while (border > 0 && needle[end] !== needle[border]) border = this.failure[border - 1] as number;
      if (needle[end] === needle[border]) border++;
      this.failure[end] = border;
    }
  }

  /** Whether the needle ends with this character (a UTF-16 code unit). */
  feed(character: string): boolean {
    while (this.matched > 0 && character !== this.needle[this.matched]) {
      this.matched = this.failure[this.matched - 1] as number;
    }
    if (character === this.needle[this.matched]) this.matched++;
    return this.matched === this.needle.length;
  }
}

/**
 * Cuts text at the first stop string to be complete (of several ending together, the longest) and holds back
 * what may still become one. The result does not depend on how the text was cut into pieces.
 */
export class StopStrings {
  private readonly matchers: readonly StringMatcher[];
  private held = '';
  /** The stop string that was found; `push` returns nothing more after that. */
  found: string | null = null;

  constructor(
    stops: readonly string[],
    private readonly keepInText: boolean,
  ) {
    this.matchers = stops.filter((stop) => stop.length > 0).map((stop) => new StringMatcher(stop));
  }

  /** Text that can be shown. */
  push(text: string): string {
    if (this.matchers.length === 0) return text;
    if (this.found !== null) return '';
    const all = this.held + text;
    for (let end = this.held.length; end < all.length; end++) {
      const stop = this.feed(all[end] as string);
      if (stop === null) continue;
      this.found = stop;
      this.held = '';
      return all.slice(0, this.keepInText ? end + 1 : end + 1 - stop.length);
    }
    const heldLength = this.matchers.reduce((longest, matcher) => Math.max(longest, matcher.matched), 0);
    this.held = all.slice(all.length - heldLength);
    return all.slice(0, all.length - heldLength);
  }

  /** What was held back, once no more text comes. */
  flush(): string {
    const rest = this.held;
    this.held = '';
    return rest;
  }

  private feed(character: string): string | null {
    let longest: string | null = null;
    for (const matcher of this.matchers) {
      if (matcher.feed(character) && matcher.needle.length > (longest?.length ?? 0)) longest = matcher.needle;
    }
    return longest;
  }
}

export interface TokenOutcome {
  readonly text: string;
  readonly finishReason: FinishReason | null;
  readonly stopReason: string | number | null;
}

/** Ids that end a choice, beside its stop strings. */
export function isEndToken(params: SamplingParams, eosTokenIds: ReadonlySet<number>, id: number): boolean {
  return (!params.ignoreEos && eosTokenIds.has(id)) || params.stopTokenIds.includes(id);
}

/** Turns the generated ids of one choice into text and decides when it ends. */
export class StopChecker {
  private readonly stops: StopStrings;
  private count = 0;

  constructor(
    private readonly params: SamplingParams,
    private readonly eosTokenIds: ReadonlySet<number>,
    /** Tokens after which the choice ends for its length. */
    private readonly maxGenerated: number,
    private readonly text: TextStream,
  ) {
    this.stops = new StopStrings(params.stop, params.includeStopStrInOutput);
  }

  accept(id: number): TokenOutcome {
    this.count++;
    if (this.count > this.params.minTokens && isEndToken(this.params, this.eosTokenIds, id)) {
      const isEos = !this.params.ignoreEos && this.eosTokenIds.has(id);
      const isShown = !isEos && this.params.includeStopStrInOutput;
      return this.finish(isShown ? this.text.push(id) : '', 'stop', isEos ? null : id);
    }
    const raw = this.text.push(id);
    if (this.count >= this.maxGenerated) return this.finish(raw, 'length', null);
    return this.outcome(this.search(raw), null, null);
  }

  private finish(raw: string, reason: FinishReason, stopReason: number | null): TokenOutcome {
    const text = this.search(raw + this.text.end());
    return this.outcome(text + this.stops.flush(), reason, stopReason);
  }

  /** Text that belongs to the promised minimum is not searched. */
  private search(raw: string): string {
    return this.count < this.params.minTokens ? raw : this.stops.push(raw);
  }

  private outcome(text: string, finishReason: FinishReason | null, stopReason: number | null): TokenOutcome {
    if (this.stops.found !== null) return { text, finishReason: 'stop', stopReason: this.stops.found };
    return { text, finishReason, stopReason };
  }
}
