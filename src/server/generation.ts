import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { Engine, EngineOutput, GenerationRequest } from '../engine/types.js';
import { FdqError } from '../errors.js';

export interface PromptOutput {
  /** Which of the request's prompts. */
  readonly prompt: number;
  readonly output: EngineOutput;
}

/** The prompts of one request, run together; outputs are merged in the order of their events. */
class PromptGroup {
  readonly #engine: Engine;
  readonly #requests: readonly GenerationRequest[];
  readonly #signal: AbortSignal;
  readonly #arrived: PromptOutput[] = [];
  readonly #failures: unknown[] = [];
  #numSubmitted = 0;
  #numRunning = 0;
  #wake: () => void = () => undefined;

  constructor(engine: Engine, requests: readonly GenerationRequest[], signal: AbortSignal) {
    this.#engine = engine;
    this.#requests = requests;
    this.#signal = signal;
  }

  /**
   * Hands over as many prompts as the engine's queue takes. The rest follows as these leave it: a request that was let in is
   * not refused for its own length.
   * @throws what `Engine.generate` throws; `overloaded` only when others fill the queue.
   */
  submit(): void {
    const isOver = this.#signal.aborted || this.#failures.length > 0;
    while (this.#numSubmitted < this.#requests.length && !isOver) {
      const request = this.#requests[this.#numSubmitted] as GenerationRequest;
      let outputs: AsyncIterable<EngineOutput>;
      try {
        outputs = this.#engine.generate(request, this.#signal);
      } catch (error) {
        if (this.#numRunning > 0 && error instanceof FdqError && error.code === 'overloaded') return;
        throw error;
      }
      this.#numRunning += 1;
      void this.#pump(this.#numSubmitted, outputs);
      this.#numSubmitted += 1;
    }
  }

  /** Resolves when something happened that is not yet read. */
  async changed(): Promise<void> {
    if (this.#arrived.length > 0 || this.#failures.length > 0 || this.#numRunning === 0) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** A failure before any output can still be an HTTP status. */
  throwIfRefused(): void {
    if (this.#arrived.length === 0 && this.#failures.length > 0) throw this.#failures[0];
  }

  async *outputs(): AsyncGenerator<PromptOutput> {
    for (;;) {
      while (this.#arrived.length > 0) yield this.#arrived.shift() as PromptOutput;
      this.throwIfRefused();
      if (this.#numRunning === 0) return;
      await this.changed();
    }
  }

  async #pump(prompt: number, outputs: AsyncIterable<EngineOutput>): Promise<void> {
    try {
      for await (const output of outputs) {
        this.#arrived.push({ prompt, output });
        this.#wake();
        if (output.kind === 'started') this.submit();
      }
      this.#numRunning -= 1;
      this.submit();
    } catch (error) {
      // Whoever reads the outputs aborts the others, after what came before.
      this.#failures.push(error);
    }
    this.#wake();
  }
}

/**
 * Queues every prompt and waits until the engine has had the chance to refuse, so that a refusal is still an HTTP status:
 * for one turn of the event loop, then for at most `holdMs` while none has left the queue. The outputs come in the order of
 * their events. Consume them to the end or abort `controller`.
 * @throws what `Engine.generate` throws; no prompt is left running then.
 */
export async function startGeneration(
  engine: Engine,
  requests: readonly GenerationRequest[],
  controller: AbortController,
  holdMs = 0,
): Promise<AsyncIterable<PromptOutput>> {
  const group = new PromptGroup(engine, requests, controller.signal);
  const held = new AbortController();
  try {
    group.submit();
    await nextTurn();
    if (holdMs > 0) await Promise.race([group.changed(), delay(holdMs, undefined, { signal: held.signal })]);
    group.throwIfRefused();
    return group.outputs();
  } catch (error) {
    controller.abort(error);
    throw error;
  } finally {
    held.abort();
  }
}
