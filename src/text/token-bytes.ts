import { UnsupportedError } from '../errors.js';

/** What a tokenizer.json `decoder` does, reduced to what each token contributes on its own. */
export interface DecoderRules {
  /** UTF-8 bytes of one token of the vocabulary; may be part of a character. */
  readonly bytesOfToken: (token: string, isAdded: boolean) => Uint8Array;
  /** Leading spaces of the whole text that are an artefact of the vocabulary and are dropped. */
  readonly leadingSpacesToStrip: number;
}

const encoder = new TextEncoder();
const SENTENCEPIECE_SPACE = '\u2581';
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * The printable stand-in of each byte in a byte-level vocabulary: bytes that are printable in Latin-1 stand for
 * themselves, the others are numbered upwards from U+0100 (GPT-2's `bytes_to_unicode`).
 */
function byteOfCharacter(): ReadonlyMap<string, number> {
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const isPrintable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    map.set(String.fromCharCode(isPrintable ? byte : next++), byte);
  }
  return map;
}

const BYTE_OF_CHARACTER = byteOfCharacter();

function bytesOfByteLevelToken(token: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) return encoder.encode(token);
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

interface DecoderConfig {
  readonly type?: unknown;
  readonly decoders?: unknown;
  readonly pattern?: unknown;
  readonly content?: unknown;
  readonly start?: unknown;
  readonly stop?: unknown;
  readonly replacement?: unknown;
  readonly prepend_scheme?: unknown;
  readonly add_prefix_space?: unknown;
}

interface Steps {
  replacements: { from: string; to: string }[];
  byteFallback: boolean;
  byteLevel: boolean;
  fused: boolean;
  strip: number;
}

function unsupported(what: string): UnsupportedError {
  return new UnsupportedError('invalid_tokenizer', `tokenizer.json has a decoder fdq cannot run: ${what}.`, {
    param: 'tokenizer.json',
    suggestions: [
      'Supported decoders are ByteLevel, Metaspace, and Replace, ByteFallback, Fuse, Strip in a Sequence.',
    ],
  });
}

function addReplace(config: DecoderConfig, steps: Steps): void {
  const pattern = config.pattern as { String?: unknown } | undefined;
  if (typeof pattern?.String !== 'string' || typeof config.content !== 'string') {
    throw unsupported('Replace without a plain string pattern');
  }
  steps.replacements.push({ from: pattern.String, to: config.content });
}

function addStrip(config: DecoderConfig, steps: Steps): void {
  // Before Fuse it would apply to each token; no published tokenizer does that.
  if (!steps.fused || config.content !== ' ' || (config.stop ?? 0) !== 0) {
    throw unsupported('Strip of something else than leading spaces of the fused text');
  }
  steps.strip = typeof config.start === 'number' ? config.start : 0;
}

function addMetaspace(config: DecoderConfig, steps: Steps): void {
  const from = typeof config.replacement === 'string' ? config.replacement : SENTENCEPIECE_SPACE;
  steps.replacements.push({ from, to: ' ' });
  const keepsFirst = config.prepend_scheme === 'never' || config.add_prefix_space === false;
  steps.strip = keepsFirst ? 0 : 1;
}

function addStep(config: DecoderConfig, steps: Steps): void {
  switch (config.type) {
    case 'Sequence':
      for (const inner of (config.decoders as DecoderConfig[] | undefined) ?? []) addStep(inner, steps);
      return;
    case 'Replace':
      return addReplace(config, steps);
    case 'Strip':
      return addStrip(config, steps);
    case 'Metaspace':
      return addMetaspace(config, steps);
    case 'ByteFallback':
      steps.byteFallback = true;
      return;
    case 'ByteLevel':
      steps.byteLevel = true;
      return;
    case 'Fuse':
      steps.fused = true;
      return;
    default:
      throw unsupported(String(config.type));
  }
}

/**
 * Reads the `decoder` of a tokenizer.json. Every supported decoder is a map from token to bytes followed by at most a
 * strip at the very front, which is what makes incremental decoding exact and O(1) per token.
 * @throws UnsupportedError `invalid_tokenizer` for decoders that look at neighbouring tokens (WordPiece, CTC ...).
 */
export function readDecoder(config: unknown): DecoderRules {
  if (typeof config !== 'object' || config === null) throw unsupported('none');
  const steps: Steps = { replacements: [], byteFallback: false, byteLevel: false, fused: false, strip: 0 };
  addStep(config, steps);
  return {
    leadingSpacesToStrip: steps.strip,
    bytesOfToken(token, isAdded) {
      const byte = steps.byteFallback ? BYTE_TOKEN.exec(token)?.[1] : undefined;
      if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
      let text = token;
      for (const { from, to } of steps.replacements) text = text.replaceAll(from, to);
      return steps.byteLevel && !isAdded ? bytesOfByteLevelToken(text) : encoder.encode(text);
    },
  };
}
