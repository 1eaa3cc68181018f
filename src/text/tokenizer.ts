import * as library from '@huggingface/tokenizers';
import { UserError } from '../errors.js';
import { EncodeWorker } from './encode-worker.js';
import { readDecoder } from './token-bytes.js';
import type { DecoderRules } from './token-bytes.js';
import { readTokenizerFiles } from './tokenizer-files.js';
import type { SpecialTokens, TokenizerFiles } from './tokenizer-files.js';

/** The part of the library that is used; its own declarations cannot be resolved under NodeNext. */
interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: (number | undefined)[] };
  get_vocab(withAddedTokens: boolean): Map<string, number>;
  token_to_id(token: string): number | undefined;
}

type LibraryConstructor = new (tokenizer: object, config: object) => LibraryTokenizer;

const HfTokenizer = (library as unknown as { Tokenizer: LibraryConstructor }).Tokenizer;

/** Texts of more UTF-16 units are encoded in another thread; this many take a few milliseconds. */
const MAX_INLINE_LENGTH = 4096;

const NO_BYTES = new Uint8Array(0);

interface AddedTokenConfig {
  readonly id: number;
  readonly content: string;
  readonly special?: boolean;
}

/** Text to ids and back for one model. Encoding is `@huggingface/tokenizers`'; decoding is by each token's bytes. */
export class Tokenizer {
  /** Tokens of the vocabulary and added ones; ids are below. The model's logits may be wider. */
  readonly vocabSize: number;
  readonly specialTokens: SpecialTokens;
  readonly specialIds: ReadonlySet<number>;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly padId: number | null;
  readonly chatTemplates: ReadonlyMap<string, string>;
  /** tokenizer_config.json as it is on disk. */
  readonly config: Readonly<Record<string, unknown>>;
  /** UTF-16 units of the longest token's text: a text of n units has at least n / this tokens. */
  readonly maxTokenLength: number;
  readonly #hf: LibraryTokenizer;
  readonly #worker: EncodeWorker;
  readonly #rules: DecoderRules;
  readonly #tokens: (string | undefined)[] = [];
  readonly #addedIds = new Set<number>();
  readonly #bytes: (Uint8Array | undefined)[] = [];

  /** @param dir the folder `files` were read from */
  constructor(hf: LibraryTokenizer, files: TokenizerFiles, dir: string) {
    this.#hf = hf;
    this.#worker = new EncodeWorker(dir);
    this.#rules = readDecoder(files.tokenizer['decoder']);
    this.specialTokens = files.specialTokens;
    this.chatTemplates = files.chatTemplates;
    this.config = files.config;
    let longest = 1;
    for (const [token, id] of hf.get_vocab(true)) {
      this.#tokens[id] = token;
      longest = Math.max(longest, token.length);
    }
    const specialIds = new Set<number>();
    for (const added of (files.tokenizer['added_tokens'] as AddedTokenConfig[] | undefined) ?? []) {
      this.#addedIds.add(added.id);
      if (added.special === true) specialIds.add(added.id);
    }
    this.specialIds = specialIds;
    this.vocabSize = this.#tokens.length;
    this.maxTokenLength = longest;
    this.bosId = this.#idOf(files.specialTokens.bos);
    this.eosId = this.#idOf(files.specialTokens.eos);
    this.padId = this.#idOf(files.specialTokens.pad);
  }

  #idOf(token: string | null): number | null {
    return token === null ? null : (this.#hf.token_to_id(token) ?? null);
  }

  get leadingSpacesToStrip(): number {
    return this.#rules.leadingSpacesToStrip;
  }

  /** Special tokens written out in `text` become their ids either way; `addSpecialTokens` adds those around it. */
  encode(text: string, addSpecialTokens = true): number[] {
    const ids = this.#hf.encode(text, { add_special_tokens: addSpecialTokens }).ids;
    // The library answers undefined for a character outside the vocabulary when there is no unknown token; the Rust
    // library drops it.
    return ids.filter((id): id is number => id !== undefined);
  }

  /** The same ids as `encode`; a long text does not hold up the event loop. */
  async encodeText(text: string, addSpecialTokens = true): Promise<number[]> {
    if (text.length <= MAX_INLINE_LENGTH) return this.encode(text, addSpecialTokens);
    return this.#worker.encode(text, addSpecialTokens);
  }

  /** Ends the thread of long texts; the tokenizer can still be used. */
  async close(): Promise<void> {
    await this.#worker.close();
  }

  /**
   * Ids the vocabulary does not have decode to nothing. The library's own decode is not used: it refuses an empty list,
   * loses U+FEFF written with byte tokens, prints undefined ids, and looks every token up among all added ones.
   * `clean_up_tokenization_spaces` is not applied, so that streamed and whole text agree.
   */
  decode(ids: readonly number[], skipSpecialTokens = false): string {
    const parts = ids.map((id) => this.tokenBytes(id, skipSpecialTokens));
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
    let start = 0;
    while (start < this.#rules.leadingSpacesToStrip && text[start] === ' ') start += 1;
    return text.slice(start);
  }

  /** The token as the vocabulary spells it (`Ġthe`, `▁the`), undefined outside the vocabulary. */
  tokenString(id: number): string | undefined {
    return this.#tokens[id];
  }

  /** UTF-8 bytes the token adds to a text; empty for unknown ids and for skipped special tokens. */
  tokenBytes(id: number, skipSpecialTokens = false): Uint8Array {
    if (skipSpecialTokens && this.specialIds.has(id)) return NO_BYTES;
    const known = this.#bytes[id];
    if (known !== undefined) return known;
    const token = this.#tokens[id];
    if (token === undefined) return NO_BYTES;
    const bytes = this.#rules.bytesOfToken(token, this.#addedIds.has(id));
    this.#bytes[id] = bytes;
    return bytes;
  }
}

/**
 * Loads the tokenizer of a model folder (tokenizer.json, tokenizer_config.json, chat templates).
 * @throws UserError `invalid_tokenizer` naming the file.
 */
export async function loadTokenizer(dir: string): Promise<Tokenizer> {
  const files = await readTokenizerFiles(dir);
  try {
    return new Tokenizer(new HfTokenizer(files.tokenizer, files.config), files, dir);
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(
      'invalid_tokenizer',
      `tokenizer.json of ${dir} cannot be used: ${(cause as Error).message}.`,
      {
        param: 'tokenizer.json',
        suggestions: ['Fetch tokenizer.json again from where the model comes from.'],
        cause,
      },
    );
  }
}
