import { stat } from 'node:fs/promises';
import path from 'node:path';
import { UserError } from '../../errors.js';
import type { LoadedText } from '../../load/load-text.js';
import type { QualityOptions } from './options.js';
import { readPrompts, type Prompt } from './prompts.js';
import { readTextFile, type TextFile } from './text.js';
import { cutWindows, type TextWindow } from './windows.js';

/** Files of a model folder that are used when none are named, as those of the demo model. */
const DEFAULT_TEXT = 'eval.txt';
const DEFAULT_PROMPTS = 'eval.jsonl';

/** What is measured on, as it was read. */
export interface InputFiles {
  readonly text?: TextFile;
  readonly prompts?: { readonly path: string; readonly list: readonly Prompt[] };
}

export interface EncodedPrompt {
  readonly prompt: Prompt;
  readonly ids: readonly number[];
}

/** The same as tokens of one model. */
export interface Inputs {
  readonly text?: TextFile;
  readonly windows: readonly TextWindow[];
  readonly prompts: readonly EncodedPrompt[];
}

/**
 * Reads the files that were named; else those that lie in the model's folder.
 * @throws UserError `usage` when there are none, and as `readTextFile` and `readPrompts`
 */
export async function readInputs(options: QualityOptions, dir: string): Promise<InputFiles> {
  const areNamed = options.text !== undefined || options.prompts !== undefined;
  const text = areNamed ? options.text : await findFile(dir, DEFAULT_TEXT);
  const prompts = areNamed ? options.prompts : await findFile(dir, DEFAULT_PROMPTS);
  if (text === undefined && prompts === undefined) {
    throw new UserError(
      'usage',
      `Expected a text to measure on: ${JSON.stringify(options.model)} brings neither ${DEFAULT_TEXT} nor ${DEFAULT_PROMPTS}.`,
      {
        param: '--text',
        suggestions: [
          'Name a UTF-8 file: --text wiki.test.raw.',
          'Or prompts with expected answers: --prompts prompts.jsonl.',
        ],
      },
    );
  }
  const list =
    prompts === undefined ? [] : (await readPrompts(prompts, '--prompts')).slice(0, options.maxPrompts);
  return {
    ...(text === undefined ? {} : { text: await readTextFile(text, '--text') }),
    ...(prompts === undefined ? {} : { prompts: { path: prompts, list } }),
  };
}

async function findFile(dir: string, name: string): Promise<string | undefined> {
  const file = path.join(dir, name);
  try {
    return (await stat(file)).isFile() ? file : undefined;
  } catch {
    return undefined;
  }
}

/**
 * @param maxPositions longest sequence of the model
 * @throws UserError `usage` for a window that is longer
 */
export function checkWindow(
  { text }: InputFiles,
  { windows: { window } }: QualityOptions,
  maxPositions: number,
): void {
  if (text === undefined || window <= maxPositions) return;
  throw new UserError(
    'usage',
    `Expected --window to be at most the model's ${maxPositions} positions but received ${window}.`,
    { param: '--window', suggestions: [`Pass --window ${maxPositions} or less.`] },
  );
}

/**
 * Cuts the text and renders the prompts.
 * @param maxPositions longest sequence of the model
 * @throws UserError `usage` for a prompt that is longer, and as `cutWindows`
 */
export async function encodeInputs(
  files: InputFiles,
  { tokenizer, renderer }: Pick<LoadedText, 'tokenizer' | 'renderer'>,
  options: QualityOptions,
  maxPositions: number,
): Promise<Inputs> {
  const { text } = files;
  // The whole text in one call and no special token: the figures are of the text alone.
  const windows =
    text === undefined ? [] : cutWindows(await tokenizer.encodeText(text.text, false), options.windows);
  const prompts: EncodedPrompt[] = [];
  for (const prompt of files.prompts?.list ?? []) {
    const { messages } = prompt;
    const ids =
      messages === undefined
        ? tokenizer.encode(prompt.prompt ?? '')
        : tokenizer.encode(await renderer.render(messages, { addGenerationPrompt: true }), false);
    if (ids.length + options.maxTokens > maxPositions) {
      throw new UserError(
        'usage',
        `The prompt in line ${prompt.line} has ${ids.length} tokens, which with an answer of ${options.maxTokens} is more than the model's ${maxPositions} positions.`,
        { param: '--prompts', suggestions: ['Shorten the prompt, or lower --max-tokens.'] },
      );
    }
    prompts.push({ prompt, ids });
  }
  return { ...(text === undefined ? {} : { text }), windows, prompts };
}
