import { UserError } from '../../errors.js';
import type { BaselineCommand } from './options.js';

/** A run of plain characters, '...', "..." or an escaped character. */
const PART = /[^\s'"\\]+|'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)/sy;
/** What only a shell could do. */
const SHELL_SYNTAX = /^(?:\||\|\||&|&&|;|<|>|>>|2>|2>&1|&>)$/;

/**
 * Splits a command as a POSIX shell would split words: blanks, both quotes and backslashes. Nothing is expanded.
 * @throws UserError `usage` for an open quote or an operator of a shell
 */
export function splitCommand(text: string): BaselineCommand {
  const words: string[] = [];
  let word: string | undefined;
  let at = 0;
  while (at < text.length) {
    if (/\s/.test(text.charAt(at))) {
      if (word !== undefined) words.push(requirePlain(word, text));
      word = undefined;
      at++;
      continue;
    }
    PART.lastIndex = at;
    const [part, single, double, escaped] = PART.exec(text) ?? [];
    if (part === undefined) throw invalid(text, 'has a quote or backslash that is not closed');
    word = (word ?? '') + (single ?? double?.replace(/\\(["\\$`])/g, '$1') ?? escaped ?? part);
    at += part.length;
  }
  if (word !== undefined) words.push(requirePlain(word, text));
  const [file, ...args] = words;
  if (file === undefined || file === '') throw invalid(text, 'is empty');
  return { text, file, args };
}

function requirePlain(word: string, text: string): string {
  if (!SHELL_SYNTAX.test(word)) return word;
  throw invalid(text, `has the shell operator ${word}, but no shell runs it`);
}

function invalid(text: string, problem: string): UserError {
  return new UserError('usage', `--baseline-command ${JSON.stringify(text)} ${problem}.`, {
    param: '--baseline-command',
    suggestions: ["Give a program and its arguments: --baseline-command 'node old/bin/run.js'."],
  });
}
