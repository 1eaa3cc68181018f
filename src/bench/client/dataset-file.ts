import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { describeMismatch, nameExpected } from '../../describe-issue.js';
import { UserError } from '../../errors.js';
import { splitArray, splitLines, type JsonElement } from './json-elements.js';
import type { ChatMessage } from './record.js';

/** One prompt of a file. */
export interface DatasetEntry {
  readonly prompt: string | readonly ChatMessage[];
  /** The answer that the file has to it. */
  readonly completion?: string;
  /** Tokens to generate, where the file says so. */
  readonly outputTokens?: number;
}

/** Windows editors begin UTF-8 with it. */
const BYTE_ORDER_MARK = Buffer.from('\uFEFF', 'utf8');

const turn = z.object({ value: z.string() });
const shareGptEntry = z.object({ conversations: z.array(turn) });
const message = z.object({ role: z.string().min(1), content: z.string() });
const customEntry = z.object({
  prompt: z.string().min(1).optional(),
  messages: z.array(message).min(1).optional(),
  output_tokens: z.int().positive().optional(),
});

/**
 * Reads conversations in ShareGPT's form, a JSON array of `{"conversations": [{"value": ...}, ...]}`: the first turn is the
 * prompt, the second the answer. Entries of fewer turns are left out, as vLLM does.
 * @throws UserError `invalid_dataset` naming file and line
 */
export function readShareGpt(file: string): readonly DatasetEntry[] {
  return readEntries(file, splitArray).flatMap((element) => {
    const { conversations } = checkEntry(shareGptEntry, element, file);
    const [first, second] = conversations;
    if (first === undefined || second === undefined) return [];
    return [{ prompt: first.value, completion: second.value }];
  });
}

/**
 * Reads a JSON lines file of `{"prompt": "...", "output_tokens": 64}` or `{"messages": [{"role", "content"}, ...]}`.
 * @param isChat whether messages can be sent
 * @throws UserError `invalid_dataset` naming file and line
 */
export function readCustom(file: string, isChat: boolean): readonly DatasetEntry[] {
  return readEntries(file, splitLines).map((element) => {
    const { prompt, messages, output_tokens: outputTokens } = checkEntry(customEntry, element, file);
    const text = prompt ?? messages;
    if (text === undefined || (prompt !== undefined && messages !== undefined)) {
      throw invalid(file, element.line, 'expected either "prompt" or "messages"');
    }
    if (messages !== undefined && !isChat) {
      throw invalid(file, element.line, '"messages" need --backend openai-chat');
    }
    return { prompt: text, ...(outputTokens === undefined ? {} : { outputTokens }) };
  });
}

function readEntries(file: string, split: (bytes: Buffer) => Iterable<JsonElement>): readonly JsonElement[] {
  const bytes = readBytes(file);
  try {
    const entries = [...split(bytes)];
    if (entries.length > 0) return entries;
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new UserError('invalid_dataset', `${file}: ${cause.message}`, {
      param: 'dataset-path',
      suggestions: SUGGESTIONS,
      cause,
    });
  }
  throw new UserError('invalid_dataset', `${file} holds no entries.`, {
    param: 'dataset-path',
    suggestions: SUGGESTIONS,
  });
}

function readBytes(file: string): Buffer {
  try {
    const bytes = readFileSync(file);
    return bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK)
      ? bytes.subarray(BYTE_ORDER_MARK.length)
      : bytes;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new UserError('invalid_dataset', `Cannot read the data set ${file}: ${code}.`, {
      param: 'dataset-path',
      suggestions: ['Check the path given with --dataset-path.'],
      cause,
    });
  }
}

const SUGGESTIONS = [
  '--dataset-name custom reads JSON lines: {"prompt": "..."}.',
  '--dataset-name sharegpt reads a JSON array: [{"conversations": [{"value": "..."}, {"value": "..."}]}].',
];

function checkEntry<T>(schema: z.ZodType<T>, { text, line }: JsonElement, file: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid(file, line, `not JSON (${(cause as Error).message})`);
  }
  const result = schema.safeParse(value, { error: nameExpected });
  if (result.success) return result.data;
  const mismatch = describeMismatch(result.error, value);
  const what = mismatch.path === '' ? 'the entry' : `"${mismatch.path}"`;
  throw invalid(file, line, `expected ${what} ${mismatch.text}`);
}

function invalid(file: string, line: number, what: string): UserError {
  return new UserError('invalid_dataset', `Line ${line} of ${file}: ${what}.`, {
    param: 'dataset-path',
    suggestions: SUGGESTIONS,
  });
}
