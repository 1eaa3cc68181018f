import type { SamplingParams } from '../engine/types.js';

/** The most likely token each time, whatever generation_config.json prefers. */
export const GREEDY: Omit<SamplingParams, 'maxTokens' | 'ignoreEos'> = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: new Map(),
  allowedTokenIds: [],
  badWords: [],
  minTokens: 0,
  stop: [],
  stopTokenIds: [],
  includeStopStrInOutput: false,
  n: 1,
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: true,
};
