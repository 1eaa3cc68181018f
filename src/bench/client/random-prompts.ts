import { UserError } from '../../errors.js';
import type { RandomSource } from './random-source.js';
import type { PromptRequest } from './record.js';

/** The part of a tokenizer that prompts are made with. */
export interface PromptTokenizer {
  readonly vocabSize: number;
  readonly specialIds: ReadonlySet<number>;
  encode(text: string, addSpecialTokens?: boolean): readonly number[];
  decode(ids: readonly number[]): string;
}

/** What random prompts can be made of. */
export interface TokenSupply {
  readonly tokenizer?: PromptTokenizer;
  /** Ids that the server is known to take as a prompt. */
  readonly serverIds?: readonly number[];
}

/** Lengths in tokens. */
export interface RandomLengths {
  readonly inputLen: number;
  readonly outputLen: number;
  /** Lengths are drawn from 1 - ratio to 1 + ratio times these; 0..1, 1 excluded. */
  readonly rangeRatio: number;
  /** Tokens all prompts begin with, on top of inputLen. */
  readonly prefixLen: number;
}

interface Making {
  readonly random: RandomSource;
  readonly tokens: TokenSupply;
  readonly isChat: boolean;
}

/** Units a prompt is made of, and how they become one. */
interface Material {
  draw(count: number): readonly number[];
  finish(units: readonly number[]): Omit<PromptRequest, 'maxTokens'>;
  /** Tokens that the server adds around a prompt. */
  readonly numSpecial: number;
}

/**
 * Prompts of random tokens: text that a tokenizer counts to the wanted length, else token ids where the server takes them,
 * else made-up words, whose tokens only the server can count.
 * @throws UserError `usage` when the shortest prompt would be empty
 */
export function makeRandomRequests(
  count: number,
  lengths: RandomLengths,
  making: Making,
): readonly PromptRequest[] {
  const { random } = making;
  const { inputLen, outputLen, rangeRatio, prefixLen } = lengths;
  const material = chooseMaterial(making);
  const input = range(Math.max(0, inputLen - material.numSpecial), rangeRatio);
  const output = range(outputLen, rangeRatio);
  if (prefixLen + input.low < 1) {
    throw new UserError('usage', `--random-input-len ${inputLen} leaves the shortest prompt empty.`, {
      param: 'random-input-len',
      suggestions: [
        'Raise --random-input-len, or lower --random-range-ratio.',
        `Each prompt has ${material.numSpecial} special tokens.`,
      ],
    });
  }
  const prefix = material.draw(prefixLen);
  return Array.from({ length: count }, () => {
    const numUnits = random.integer(input.low, input.high);
    const maxTokens = Math.max(1, random.integer(output.low, output.high));
    return { ...material.finish([...prefix, ...material.draw(numUnits)]), maxTokens };
  });
}

function range(length: number, ratio: number): { readonly low: number; readonly high: number } {
  return { low: Math.floor(length * (1 - ratio)), high: Math.ceil(length * (1 + ratio)) };
}

function chooseMaterial({ random, tokens, isChat }: Making): Material {
  const drawFrom = (ids: readonly number[], count: number): readonly number[] =>
    Array.from({ length: count }, () => ids[random.integer(0, ids.length - 1)] as number);
  const { tokenizer, serverIds } = tokens;
  if (tokenizer !== undefined) {
    const ids = chooseTokens(tokenizer, random);
    const draw = (count: number): readonly number[] => drawFrom(ids, count);
    const numSpecial = tokenizer.encode('').length;
    return {
      draw,
      numSpecial,
      finish: (units) => {
        const { prompt, length } = textOfTokens(units, tokenizer, draw);
        return { prompt, inputTokens: length + numSpecial };
      },
    };
  }
  if (!isChat && serverIds !== undefined) {
    const draw = (count: number): readonly number[] => drawFrom(serverIds, count);
    return { draw, numSpecial: 0, finish: (units) => ({ prompt: units, inputTokens: units.length }) };
  }
  return {
    draw: (count) => Array.from({ length: count }, () => random.integer(0, NUM_WORDS - 1)),
    numSpecial: 0,
    finish: (units) => ({ prompt: units.map(wordOf).join(''), inputTokens: null }),
  };
}

const POOL_TOKENS = 2048;
const POOL_TRIES = 16 * POOL_TOKENS;

/**
 * Tokens that stay themselves beside each other, such as words with their space: others become different tokens when
 * they are joined as text and read again, and every prompt would have to be corrected at length.
 */
function chooseTokens(tokenizer: PromptTokenizer, random: RandomSource): readonly number[] {
  const { vocabSize, specialIds } = tokenizer;
  const pool: number[] = [];
  const others: number[] = [];
  const tried = new Set(specialIds);
  for (let tries = 0; tries < POOL_TRIES && pool.length < POOL_TOKENS; tries++) {
    const id = random.integer(0, vocabSize - 1);
    if (tried.has(id)) continue;
    tried.add(id);
    const read = tokenizer.encode(tokenizer.decode([id, id]), false);
    if (read.length === 2 && read[0] === id && read[1] === id) pool.push(id);
    else others.push(id);
  }
  return pool.length > 0 ? pool : others;
}

const MAX_TRIES = 10;

/** Tokens that are joined as text need not be the same tokens when they are read again, so some are cut or added. */
function textOfTokens(
  wanted: readonly number[],
  tokenizer: PromptTokenizer,
  draw: (count: number) => readonly number[],
): { readonly prompt: string; readonly length: number } {
  let prompt = tokenizer.decode(wanted);
  let read = tokenizer.encode(prompt, false);
  for (let tries = 0; tries < MAX_TRIES && read.length !== wanted.length; tries++) {
    const ids =
      read.length > wanted.length
        ? read.slice(0, wanted.length)
        : [...read, ...draw(wanted.length - read.length)];
    prompt = tokenizer.decode(ids);
    read = tokenizer.encode(prompt, false);
  }
  return { prompt, length: read.length };
}

const CONSONANTS = 'bcdfghjklmnpqrstvwxyz';
const VOWELS = 'aeiou';
const NUM_SYLLABLES = CONSONANTS.length * VOWELS.length;
const NUM_WORDS = NUM_SYLLABLES ** 2;

/** ` bake`, ` zotu`: two syllables, a token or two in most vocabularies. */
function wordOf(index: number): string {
  const syllable = (at: number): string =>
    `${CONSONANTS[Math.floor(at / VOWELS.length)] ?? ''}${VOWELS[at % VOWELS.length] ?? ''}`;
  return ` ${syllable(Math.floor(index / NUM_SYLLABLES))}${syllable(index % NUM_SYLLABLES)}`;
}

/** Words whose tokens are asked for where a server is to say which ids it knows. */
export function sampleWords(count: number): string {
  return Array.from({ length: count }, (_, i) => wordOf((i * 613) % NUM_WORDS)).join('');
}
