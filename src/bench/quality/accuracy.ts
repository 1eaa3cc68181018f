import { setMaxListeners } from 'node:events';
import { createEngine } from '../../engine/engine.js';
import { collectEosIds } from '../../load/generation-config.js';
import type { LoadedModel } from '../../load/load-model.js';
import type { LoadedText } from '../../load/load-text.js';
import { wrapRunner } from '../../runtime/model-runner.js';
import { GREEDY } from '../greedy.js';
import type { EncodedPrompt } from './inputs.js';
import { isCorrect } from './prompts.js';

export interface AnswerOptions {
  readonly maxTokens: number;
  /** Prompts answered together. */
  readonly maxNumSeqs: number;
  readonly onProgress: (answered: number) => void;
  readonly signal: AbortSignal;
}

/**
 * Share of the prompts that the model answers correctly, decoding greedily in one continuous batch.
 * @returns null when `signal` ended it
 */
export async function measureAccuracy(
  model: LoadedModel,
  text: LoadedText,
  prompts: readonly EncodedPrompt[],
  { maxTokens, maxNumSeqs, onProgress, signal }: AnswerOptions,
): Promise<number | null> {
  const { runner, checkpoint, memory } = model;
  // The model is closed by whoever loaded it.
  const borrowed = wrapRunner(runner, { close: () => Promise.resolve() });
  const engine = createEngine(borrowed, {
    scheme: model.scheme,
    executionProvider: 'cpu',
    maxNumSeqs,
    maxNumBatchedTokens: memory.maxBatchedTokens,
    maxModelLen: runner.maxModelLen,
    maxWaiting: prompts.length,
    maxWaitingTokens: Number.MAX_SAFE_INTEGER,
    enablePrefixCaching: true,
    eosTokenIds: collectEosIds(checkpoint.config, checkpoint.generationConfig ?? {}, text.tokenizer.eosId),
    createTextStream: text.createTextStream,
  });
  const params = { ...GREEDY, maxTokens, ignoreEos: false };
  // Every prompt listens.
  setMaxListeners(0, signal);
  let answered = 0;
  const ask = async ({ prompt, ids }: EncodedPrompt): Promise<boolean> => {
    let answer = '';
    const request = { id: `line-${prompt.line}`, promptTokenIds: ids, params };
    for await (const output of engine.generate(request, signal)) {
      if (output.kind === 'delta') answer += output.choice.text;
    }
    onProgress(++answered);
    return isCorrect(prompt, answer);
  };
  try {
    const correct = await Promise.all(prompts.map(ask));
    return signal.aborted ? null : correct.filter(Boolean).length / prompts.length;
  } finally {
    await engine.close();
  }
}
