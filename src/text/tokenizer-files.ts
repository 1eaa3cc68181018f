import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { UserError } from '../errors.js';

export interface SpecialTokens {
  readonly bos: string | null;
  readonly eos: string | null;
  readonly pad: string | null;
  readonly unk: string | null;
}

/** What a model folder says about text. */
export interface TokenizerFiles {
  readonly tokenizer: Record<string, unknown>;
  readonly config: Record<string, unknown>;
  readonly specialTokens: SpecialTokens;
  /** Jinja sources by name; the one used without tools is `default`. */
  readonly chatTemplates: ReadonlyMap<string, string>;
}

async function readOptional(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw new UserError('invalid_tokenizer', `Cannot read ${path} (${code ?? String(cause)}).`, {
      param: path,
      suggestions: ['Check the permissions of the model folder.'],
      cause,
    });
  }
}

function parseObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UserError('invalid_tokenizer', `${path} is not JSON: ${(cause as Error).message}.`, {
      param: path,
      suggestions: ['Fetch the file again; it may have been truncated.'],
      cause,
    });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new UserError(
    'invalid_tokenizer',
    `${path} holds ${Array.isArray(value) ? 'an array' : typeof value}, not an object.`,
    {
      param: path,
      suggestions: ['Fetch the file again from where the model comes from.'],
    },
  );
}

/** A special token is written as its text or as an AddedToken object. */
function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : null;
}

function templatesOfConfig(value: unknown): Map<string, string> {
  const templates = new Map<string, string>();
  if (typeof value === 'string') templates.set('default', value);
  if (!Array.isArray(value)) return templates;
  for (const entry of value as ({ name?: unknown; template?: unknown } | null)[]) {
    const { name, template } = entry ?? {};
    if (typeof name === 'string' && typeof template === 'string') templates.set(name, template);
  }
  return templates;
}

async function readTemplates(dir: string, configured: unknown): Promise<ReadonlyMap<string, string>> {
  const templates = templatesOfConfig(configured);
  const own = await readOptional(join(dir, 'chat_template.jinja'));
  if (own !== null) templates.set('default', own);
  const moreDir = join(dir, 'additional_chat_templates');
  const more = await readdir(moreDir).catch(() => [] as string[]);
  for (const file of more.filter((name) => name.endsWith('.jinja'))) {
    const source = await readOptional(join(moreDir, file));
    if (source !== null) templates.set(file.slice(0, -'.jinja'.length), source);
  }
  return templates;
}

/**
 * Reads tokenizer.json, tokenizer_config.json, special_tokens_map.json and the chat templates of a model folder. A
 * `chat_template.jinja` wins over the template in tokenizer_config.json, as in transformers.
 * @throws UserError `invalid_tokenizer` when tokenizer.json is missing or a file is not what it should be.
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const tokenizerPath = join(dir, 'tokenizer.json');
  const text = await readOptional(tokenizerPath);
  if (text === null) {
    throw new UserError(
      'invalid_tokenizer',
      `${dir} has no tokenizer.json, without which no text can be read or written.`,
      {
        param: 'tokenizer.json',
        suggestions: [
          'Copy tokenizer.json of the model into the folder (tokenizer.model alone is not enough).',
        ],
      },
    );
  }
  const tokenizer = parseObject(text, tokenizerPath);
  const configPath = join(dir, 'tokenizer_config.json');
  const configText = await readOptional(configPath);
  const config = configText === null ? {} : parseObject(configText, configPath);
  const mapPath = join(dir, 'special_tokens_map.json');
  const mapText = await readOptional(mapPath);
  const specials = { ...(mapText === null ? {} : parseObject(mapText, mapPath)), ...config } as Record<
    string,
    unknown
  >;
  return {
    tokenizer,
    config,
    specialTokens: {
      bos: tokenText(specials['bos_token']),
      eos: tokenText(specials['eos_token']),
      pad: tokenText(specials['pad_token']),
      unk: tokenText(specials['unk_token']),
    },
    chatTemplates: await readTemplates(dir, config['chat_template']),
  };
}
