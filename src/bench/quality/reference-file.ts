import { existsSync, rmSync, statSync } from 'node:fs';
import { open, rename, rm, statfs, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { z } from 'zod';
import { checkWritable, makeFolder } from '../../cli/write-file.js';
import { counted } from '../../counted.js';
import { UserError } from '../../errors.js';

/**
 * Logits of the unquantized model on disk:
 *
 *   bytes 0..7      FDQLOGIT
 *   bytes 8..11     length of the header, little-endian
 *   from 12         header: JSON, padded with spaces to a multiple of 64 bytes from the beginning of the file
 *   then            [rows, vocab] binary16, little-endian: logit - largest logit of the row
 *
 * Rows are the scored tokens in the order of the text. On the demo model 16 bits move a mean divergence by 1e-8 to
 * 6e-8 nats, so that three digits are right from 1e-5 nats on; a float32 would take twice the room.
 */
const MAGIC = 'FDQLOGIT';
const PREFIX_BYTES = MAGIC.length + 4;
const ALIGNMENT = 64;
const MAX_HEADER_BYTES = 1 << 16;
const VERSION = 1;

const header = z.object({
  version: z.literal(VERSION),
  /** Digest of the checkpoint. */
  checkpoint: z.string(),
  textSha256: z.string(),
  window: z.number().int().positive(),
  stride: z.number().int().positive(),
  windows: z.number().int().positive(),
  rows: z.number().int().positive(),
  vocab: z.number().int().positive(),
});

/** What the logits are of; all of it must be the same for them to be used. */
export type ReferenceKey = Omit<z.infer<typeof header>, 'version'>;

const WHAT: Readonly<Record<keyof ReferenceKey, string>> = {
  checkpoint: 'another checkpoint',
  textSha256: 'another text',
  window: 'another --window',
  stride: 'another --stride',
  windows: 'another number of windows',
  rows: 'another number of tokens',
  vocab: 'another vocabulary',
};

export function referenceBytes({ rows, vocab }: Pick<ReferenceKey, 'rows' | 'vocab'>): number {
  return rows * vocab * Uint16Array.BYTES_PER_ELEMENT;
}

/**
 * Makes sure, before anything is located or computed, that a file that is not there can be written later.
 * @throws UserError `usage`
 */
export function checkReferencePlace(file: string): void {
  const flag = '--reference-logits';
  if (existsSync(file) && statSync(file).isFile()) return;
  makeFolder(path.dirname(path.resolve(file)), flag);
  checkWritable(file, flag);
}

/**
 * Opens the file if it is there.
 * @throws UserError `usage` when it is no such file, is cut short, or was made of something else
 */
export async function openReference(file: string, key: ReferenceKey): Promise<ReferenceReader | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(file);
  } catch (error) {
    if ((error as { readonly code?: unknown }).code === 'ENOENT') return undefined;
    throw refuse(file, `could not be read: ${(error as Error).message}`, error);
  }
  try {
    const { found, start } = await readHeader(handle, file);
    const wrong = (Object.keys(WHAT) as (keyof ReferenceKey)[]).find((name) => found[name] !== key[name]);
    if (wrong !== undefined) throw refuse(file, `is of ${WHAT[wrong]}`);
    const { size } = await handle.stat();
    const expected = start + referenceBytes(key);
    if (size !== expected) throw refuse(file, `has ${size} bytes instead of ${expected}`);
    return new ReferenceReader(handle, { file, start, vocab: key.vocab });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function readHeader(
  handle: FileHandle,
  file: string,
): Promise<{ readonly found: ReferenceKey; readonly start: number }> {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  await handle.read(prefix, 0, PREFIX_BYTES, 0);
  const length = prefix.readUInt32LE(MAGIC.length);
  if (prefix.toString('latin1', 0, MAGIC.length) !== MAGIC || length > MAX_HEADER_BYTES) {
    throw refuse(file, 'holds no logits of fdq');
  }
  const bytes = Buffer.alloc(length);
  await handle.read(bytes, 0, length, PREFIX_BYTES);
  try {
    return { found: header.parse(JSON.parse(bytes.toString('utf8'))), start: PREFIX_BYTES + length };
  } catch (cause) {
    throw refuse(file, 'has a header this version of fdq cannot read', cause);
  }
}

/** Rows one after the other. */
export class ReferenceReader {
  readonly #handle: FileHandle;
  readonly #place: { readonly file: string; readonly start: number; readonly vocab: number };

  constructor(
    handle: FileHandle,
    place: { readonly file: string; readonly start: number; readonly vocab: number },
  ) {
    this.#handle = handle;
    this.#place = place;
  }

  /** Reads rows `first` .. `first + rows - 1` into the beginning of `target`, and returns that part. */
  async read(first: number, rows: number, target: Uint16Array): Promise<Uint16Array> {
    const { file, start, vocab } = this.#place;
    const part = target.subarray(0, rows * vocab);
    const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    for (let done = 0; done < bytes.length;) {
      const at = start + first * vocab * Uint16Array.BYTES_PER_ELEMENT + done;
      const { bytesRead } = await this.#handle.read(bytes, done, bytes.length - done, at);
      if (bytesRead === 0) throw refuse(file, 'ended while it was read');
      done += bytesRead;
    }
    return part;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/**
 * Refuses a file that would become too large, before anything is computed.
 * @param limitBytes what the user allows
 * @throws UserError `usage`, or `write_failed` when the disk has no room
 */
export async function checkRoom(file: string, key: ReferenceKey, limitBytes: number): Promise<void> {
  const bytes = referenceBytes(key);
  const perWindow = bytes / key.windows;
  if (bytes > limitBytes) {
    throw new UserError(
      'usage',
      `The logits of ${counted(key.windows, 'window')} take ${bytes} bytes, more than --max-reference-bytes ${limitBytes} allows.`,
      {
        param: '--max-reference-bytes',
        suggestions: [
          `Score fewer windows: --max-windows ${Math.max(1, Math.floor(limitBytes / perWindow))}.`,
          `Or allow more: --max-reference-bytes ${bytes}.`,
        ],
      },
    );
  }
  const folder = path.dirname(path.resolve(file));
  const { bavail, bsize } = await statfs(folder);
  if (bytes <= bavail * bsize) return;
  throw new UserError(
    'write_failed',
    `The logits of ${counted(key.windows, 'window')} take ${bytes} bytes but ${JSON.stringify(folder)} has only ${bavail * bsize}.`,
    {
      param: '--reference-logits',
      suggestions: ['Free some space, name a file on another disk, or score fewer windows: --max-windows.'],
    },
  );
}

/** Writes the file under another name until it is whole. */
export class ReferenceWriter {
  readonly #file: string;
  readonly #partial: string;
  readonly #handle: FileHandle;
  /** A second Ctrl-C ends the process on the spot. */
  readonly #removePartial = (): void => rmSync(this.#partial, { force: true });

  private constructor(file: string, partial: string, handle: FileHandle) {
    this.#file = file;
    this.#partial = partial;
    this.#handle = handle;
    process.once('exit', this.#removePartial);
  }

  static async create(file: string, key: ReferenceKey): Promise<ReferenceWriter> {
    const partial = `${file}.${process.pid}.partial`;
    const json = Buffer.from(JSON.stringify({ version: VERSION, ...key }));
    const length = Math.ceil((PREFIX_BYTES + json.length) / ALIGNMENT) * ALIGNMENT - PREFIX_BYTES;
    const start = Buffer.alloc(PREFIX_BYTES + length, ' ');
    start.write(MAGIC, 'latin1');
    start.writeUInt32LE(length, MAGIC.length);
    json.copy(start, PREFIX_BYTES);
    const handle = await wrapWrite(file, () => open(partial, 'wx'));
    const writer = new ReferenceWriter(file, partial, handle);
    try {
      await writer.#write(start);
    } catch (error) {
      await writer.discard();
      throw error;
    }
    return writer;
  }

  /** Appends rows. */
  async append(rows: Uint16Array): Promise<void> {
    await this.#write(new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength));
  }

  async finish(): Promise<void> {
    await wrapWrite(this.#file, async () => {
      await this.#handle.close();
      await rename(this.#partial, this.#file);
    });
    process.off('exit', this.#removePartial);
  }

  /** Removes what was written. */
  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.#partial, { force: true });
    process.off('exit', this.#removePartial);
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await wrapWrite(this.#file, () => this.#handle.writeFile(bytes));
  }
}

async function wrapWrite<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new UserError(
      'write_failed',
      `Could not write ${JSON.stringify(file)}: ${(cause as Error).message}.`,
      { param: '--reference-logits', suggestions: ['Name a file in a folder that can be written.'], cause },
    );
  }
}

function refuse(file: string, what: string, cause?: unknown): UserError {
  return new UserError(
    'usage',
    `Expected the logits of this run in ${JSON.stringify(file)} but it ${what}.`,
    {
      param: '--reference-logits',
      suggestions: ['Remove the file to have it made again, or name another one.'],
      cause,
    },
  );
}
