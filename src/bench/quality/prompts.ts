import { z } from 'zod';
import { describeMismatch, nameExpected } from '../../describe-issue.js';
import { UserError } from '../../errors.js';
import { readTextFile } from './text.js';

const MAX_SHOWN = 60;

const message = z.looseObject({ role: z.string(), content: z.string().nullable() });
const fields = {
  id: z.string().optional(),
  /** A chat for the model's template ... */
  messages: z.array(message).min(1).optional(),
  /** ... or text to continue as it is. */
  prompt: z.string().min(1).optional(),
};
const line = z.discriminatedUnion(
  'match',
  [
    z.object({ ...fields, match: z.literal('exact'), expected: z.string() }),
    z.object({ ...fields, match: z.literal('json'), expected: z.string().refine(isJson, 'JSON text') }),
    z.object({ ...fields, match: z.literal('contains'), expected: z.array(z.string()).min(1) }),
  ],
  {
    error: ({ code }: { readonly code: string }) =>
      code === 'invalid_union' ? 'one of "exact", "json", "contains"' : undefined,
  },
);

/** One line of a file of prompts. */
export type Prompt = z.infer<typeof line> & {
  /** In the file, from 1. */
  readonly line: number;
};

/**
 * Reads prompts, one JSON object a line; empty lines and a byte order mark are skipped.
 * @throws UserError `usage` naming the line that is none
 */
export async function readPrompts(path: string, flag: string): Promise<readonly Prompt[]> {
  const { text } = await readTextFile(path, flag);
  return text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .flatMap((source, i) => {
      if (source.trim() === '') return [];
      return [{ ...parseLine(source, (what) => refuse(flag, path, i + 1, what)), line: i + 1 }];
    });
}

function parseLine(source: string, refuseLine: (what: string) => UserError): z.infer<typeof line> {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    throw refuseLine(`received ${JSON.stringify(source.slice(0, MAX_SHOWN))}`);
  }
  const withMatch =
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? { match: 'exact', ...value }
      : value;
  const parsed = line.safeParse(withMatch, { error: nameExpected });
  if (!parsed.success) {
    const { path, text } = describeMismatch(parsed.error, withMatch);
    throw refuseLine(`expected ${path === '' ? 'it' : `its "${path}"`} ${text}`);
  }
  const { messages, prompt } = parsed.data;
  if ((messages === undefined) === (prompt === undefined)) {
    throw refuseLine('it has not exactly one of "messages" and "prompt"');
  }
  return parsed.data;
}

function refuse(flag: string, path: string, number: number, what: string): UserError {
  return new UserError(
    'usage',
    `Expected a prompt in line ${number} of ${JSON.stringify(path)} (${flag}) but ${what}.`,
    {
      param: flag,
      suggestions: [
        'Write one JSON object a line: {"messages": [{"role": "user", "content": "..."}], "expected": "...", "match": "exact"}.',
        '"match" is exact, json (equal as JSON values) or contains ("expected" is a list of strings in order).',
      ],
    },
  );
}

/**
 * exact: the text without white space around it is what is expected; json: both are the same JSON value; contains:
 * all strings occur, one after the other.
 */
export function isCorrect(prompt: Pick<Prompt, 'match' | 'expected'>, answer: string): boolean {
  const { match, expected } = prompt;
  if (match === 'exact') return answer.trim() === expected;
  if (match === 'json') return isJson(answer) && canonicalJson(answer) === canonicalJson(String(expected));
  let from = 0;
  return [expected].flat().every((part) => {
    const at = answer.indexOf(part, from);
    from = at + part.length;
    return at >= 0;
  });
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The same text for the same value, whatever the order of keys. */
function canonicalJson(text: string): string {
  return JSON.stringify(JSON.parse(text), (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
}
