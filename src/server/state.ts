import type { Engine } from '../engine/types.js';
import { FdqError, UserError } from '../errors.js';
import type { ChatRenderer } from '../text/chat-template.js';
import type { Tokenizer } from '../text/tokenizer.js';

/** Sampling defaults of the model (generation_config.json), between the request's and OpenAI's. */
export interface GenerationDefaults {
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly maxTokens?: number;
  /** Seed of requests that bring none; absent: random for each. */
  readonly seed?: bigint;
}

export interface ServedModel {
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
  readonly renderer: ChatRenderer;
  readonly defaults: GenerationDefaults;
}

export type Phase = 'loading' | 'ready' | 'draining' | 'dead';

/** What the server can do right now. The port is open from the first phase on. */
export class ServerState {
  #phase: Phase = 'loading';
  #step = 'starting';
  #progress = 0;
  #model: ServedModel | null = null;
  /** Generation requests under way. */
  inFlight = 0;

  /** 'dead' also when the engine died on its own. */
  get phase(): Phase {
    return this.#phase === 'ready' && this.#model?.engine.alive === false ? 'dead' : this.#phase;
  }

  get loading(): { readonly step: string; readonly progress: number } {
    return { step: this.#step, progress: this.#progress };
  }

  setProgress(step: string, fraction: number): void {
    this.#step = step;
    this.#progress = Math.min(1, Math.max(0, fraction));
  }

  setReady(model: ServedModel): void {
    this.#model = model;
    if (this.#phase === 'loading') this.#phase = 'ready';
  }

  setDraining(): void {
    this.#phase = 'draining';
  }

  setDead(): void {
    this.#phase = 'dead';
  }

  /** The model whether or not new requests are taken, null while loading. */
  get loadedModel(): ServedModel | null {
    return this.#model;
  }

  /** @throws UserError `not_ready`, `shutting_down` or `engine_dead`. */
  requireModel(): ServedModel {
    const phase = this.phase;
    if (phase === 'draining') {
      throw new UserError('shutting_down', 'The server is shutting down and takes no new requests.', {
        suggestions: ['Send the request again in a few seconds; another instance may take it.'],
      });
    }
    if (phase === 'dead') {
      throw new FdqError('engine_dead', 'The inference engine has stopped.', {
        suggestions: ['Restart the server; its log tells why.'],
      });
    }
    if (this.#model === null) {
      const percent = Math.round(this.#progress * 100);
      throw new UserError('not_ready', `The model is loading (${this.#step}, ${percent} %).`, {
        suggestions: [
          'Send the request again in a few seconds; GET /health answers 200 when the model is ready.',
        ],
      });
    }
    return this.#model;
  }
}

/** Reads the sampling defaults that vLLM also takes from generation_config.json; values of a wrong type are left out. */
export function readGenerationDefaults(config: Readonly<Record<string, unknown>>): GenerationDefaults {
  const number = (key: string): number | undefined => {
    const value = config[key];
    return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
  };
  const entries = {
    temperature: number('temperature'),
    topP: number('top_p'),
    topK: number('top_k'),
    minP: number('min_p'),
    repetitionPenalty: number('repetition_penalty'),
    maxTokens: number('max_new_tokens'),
  };
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined));
}
