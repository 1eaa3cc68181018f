import { readFileSync, existsSync } from 'node:fs';
import { ChatRenderer } from '../text/chat-template.js';
import { createTextStreamFactory } from '../text/detokenizer.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';

export interface LoadedText {
  readonly tokenizer: Tokenizer;
  readonly renderer: ChatRenderer;
  readonly createTextStream: ReturnType<typeof createTextStreamFactory>;
}

/**
 * Loads a tokenizer folder. `chatTemplate`, a file or the template itself, replaces the model's templates.
 * @throws UserError `invalid_tokenizer`
 */
export async function loadText(dir: string, chatTemplate?: string): Promise<LoadedText> {
  const tokenizer = await loadTokenizer(dir);
  const templates =
    chatTemplate === undefined ? tokenizer.chatTemplates : new Map([['default', readTemplate(chatTemplate)]]);
  const renderer = new ChatRenderer({ templates, specialTokens: tokenizer.specialTokens });
  return { tokenizer, renderer, createTextStream: createTextStreamFactory(tokenizer) };
}

function readTemplate(fileOrText: string): string {
  return existsSync(fileOrText) ? readFileSync(fileOrText, 'utf8') : fileOrText;
}
