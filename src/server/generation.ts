import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { Engine, EngineOutput, GenerationRequest } from '../engine/types.js';

export interface PromptOutput {
  /** Which of the request's prompts. */
  readonly prompt: number;
  readonly output: EngineOutput;
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
  const held = new AbortController();
  try {
    const iterators = requests.map((request) =>
      engine.generate(request, controller.signal)[Symbol.asyncIterator](),
    );
    const firsts = iterators.map((iterator) => iterator.next());
    for (const first of firsts) first.catch(() => undefined);
    await Promise.race([Promise.all(firsts), nextTurn()]);
    if (holdMs > 0) await Promise.race([...firsts, delay(holdMs, undefined, { signal: held.signal })]);
    return iterators.length === 1
      ? readOne(
          iterators[0] as AsyncIterator<EngineOutput>,
          firsts[0] as Promise<IteratorResult<EngineOutput>>,
        )
      : readAll(iterators, firsts, controller);
  } catch (error) {
    controller.abort(error);
    throw error;
  } finally {
    held.abort();
  }
}

async function* readOne(
  iterator: AsyncIterator<EngineOutput>,
  first: Promise<IteratorResult<EngineOutput>>,
): AsyncGenerator<PromptOutput> {
  for (let result = await first; result.done !== true; result = await iterator.next()) {
    yield { prompt: 0, output: result.value };
  }
}

/** Merges by arrival: each iterator has one `next` under way. The first failure aborts the others. */
async function* readAll(
  iterators: readonly AsyncIterator<EngineOutput>[],
  firsts: readonly Promise<IteratorResult<EngineOutput>>[],
  controller: AbortController,
): AsyncGenerator<PromptOutput> {
  const arrived: PromptOutput[] = [];
  let running = iterators.length;
  const failures: unknown[] = [];
  let wake: () => void = () => undefined;
  const pump = async (prompt: number): Promise<void> => {
    const iterator = iterators[prompt] as AsyncIterator<EngineOutput>;
    try {
      let result = await (firsts[prompt] as Promise<IteratorResult<EngineOutput>>);
      while (result.done !== true) {
        arrived.push({ prompt, output: result.value });
        wake();
        result = await iterator.next();
      }
    } catch (error) {
      failures.push(error);
      controller.abort(error);
    }
    running -= 1;
    wake();
  };
  iterators.forEach((_, prompt) => void pump(prompt));
  for (;;) {
    while (arrived.length > 0) yield arrived.shift() as PromptOutput;
    if (failures.length > 0) throw failures[0];
    if (running === 0) return;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}
