import { accessSync, constants, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { UserError } from '../errors.js';
import { nearest } from './nearest.js';
import type { ServeOptions } from './serve-options.js';
import { checkWritable } from './write-file.js';

/**
 * Checks what loading would only stumble over after the weights are read: files that flags name, and defaults of
 * sampling.
 * @throws UserError `usage` naming the flag
 */
export function checkServeOptions({ readyFile, tokenizer, chat, http }: ServeOptions): void {
  if (readyFile !== undefined) checkReadyFile(readyFile);
  if (tokenizer !== undefined) checkTokenizer(tokenizer);
  if (chat.chatTemplate !== undefined) checkChatTemplate(chat.chatTemplate);
  checkGenerationDefaults(chat.overrideGenerationConfig);
  if (http.ssl !== undefined) {
    checkReadable('ssl-keyfile', http.ssl.keyFile);
    checkReadable('ssl-certfile', http.ssl.certFile);
  }
  if (http.metricsPort !== undefined && http.metricsPort !== 0 && http.metricsPort === http.port) {
    throw refuse('metrics-port', `a port other than --port`, http.metricsPort, [
      'Leave --metrics-port out: /metrics is on the main port then.',
    ]);
  }
}

function refuse(
  flag: string,
  what: string,
  received: unknown,
  suggestions: readonly string[] = [`Give --${flag} ${what}.`],
): UserError {
  const message = `Expected --${flag} to be ${what} but received ${JSON.stringify(received)}.`;
  return new UserError('usage', message, { param: flag, suggestions });
}

type FileKind = 'file' | 'folder' | 'absent';

function kindOf(file: string): FileKind {
  // Text of a template is longer than any path may be: that is not a file either.
  try {
    return statSync(file).isDirectory() ? 'folder' : 'file';
  } catch {
    return 'absent';
  }
}

function isAllowed(file: string, mode: number): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}

function checkReadable(flag: string, file: string): void {
  if (kindOf(file) !== 'file' || !isAllowed(file, constants.R_OK))
    throw refuse(flag, 'a readable file', file);
}

function checkReadyFile(file: string): void {
  try {
    checkWritable(file, '--ready-file');
  } catch {
    throw refuse('ready-file', 'a file that can be written', file, [
      `Check that the folder ${path.dirname(path.resolve(file))} exists and that this user may write to it.`,
    ]);
  }
}

function checkTokenizer(dir: string): void {
  if (kindOf(path.join(dir, 'tokenizer.json')) === 'file') return;
  throw refuse('tokenizer', 'a folder with tokenizer.json', dir, [
    `Hugging Face ids are not looked up for it; fetch one first: hf download ${path.basename(dir) === dir ? '<org/name>' : dir} --include "tokenizer*" --local-dir <folder>`,
  ]);
}

function checkChatTemplate(fileOrText: string): void {
  const kind = kindOf(fileOrText);
  if (kind === 'file') checkReadable('chat-template', fileOrText);
  // Every template that is not a constant has a Jinja tag.
  else if (kind === 'folder' || !fileOrText.includes('{')) {
    throw refuse('chat-template', 'a readable Jinja file or the text of a template', fileOrText);
  }
  const what = kind === 'file' ? fileOrText : 'its text';
  try {
    new Template(kind === 'file' ? readFileSync(fileOrText, 'utf8') : fileOrText);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UserError(
      'usage',
      `Expected --chat-template to be a Jinja template but ${what} is not: ${reason}.`,
      {
        param: 'chat-template',
        suggestions: ['Correct the template, or leave the flag out to use the one of the model.'],
        cause,
      },
    );
  }
}

interface Range {
  readonly what: string;
  readonly accepts: (value: unknown) => boolean;
}

function number(what: string, isInRange: (value: number) => boolean): Range {
  return { what, accepts: (value) => typeof value === 'number' && isInRange(value) };
}

/** What of generation_config.json has an effect, with the values requests may have too. */
const GENERATION_DEFAULTS: Readonly<Record<string, Range>> = {
  temperature: number('a number from 0 to 2', (value) => value >= 0 && value <= 2),
  top_p: number('a number from 0 to 1', (value) => value >= 0 && value <= 1),
  top_k: number('a whole number of at least -1', (value) => Number.isSafeInteger(value) && value >= -1),
  min_p: number('a number from 0 to 1', (value) => value >= 0 && value <= 1),
  repetition_penalty: number('a number above 0, at most 10', (value) => value > 0 && value <= 10),
  max_new_tokens: number(
    'a whole number of at least 1',
    (value) => Number.isSafeInteger(value) && value >= 1,
  ),
  eos_token_id: {
    what: 'a token id or a list of them',
    accepts: (value) => [value].flat().every((id) => Number.isSafeInteger(id) && (id as number) >= 0),
  },
};

function checkGenerationDefaults(defaults: Readonly<Record<string, unknown>>): void {
  const flag = 'override-generation-config';
  for (const [key, value] of Object.entries(defaults)) {
    const range = GENERATION_DEFAULTS[key];
    if (range === undefined) {
      const keys = Object.keys(GENERATION_DEFAULTS);
      const guess = nearest(key, keys);
      throw new UserError('usage', `Expected keys ${keys.join(', ')} in --${flag} but received "${key}".`, {
        param: flag,
        suggestions: [guess === undefined ? 'Requests set everything else.' : `Did you mean ${guess}?`],
      });
    }
    if (!range.accepts(value)) {
      const message = `Expected ${key} of --${flag} to be ${range.what} but received ${JSON.stringify(value)}.`;
      throw new UserError('usage', message, { param: flag, suggestions: [`Give ${key} ${range.what}.`] });
    }
  }
}
