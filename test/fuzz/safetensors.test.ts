import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { FdqError } from '../../src/errors.js';
import { readSafetensorsHeader } from '../../src/hub/safetensors.js';
import { parseWeightIndex } from '../../src/hub/weight-files.js';
import { fc } from '../helpers/properties.js';
import { createTempDir } from '../helpers/temp-dir.js';
import { buildRawSafetensors, buildSafetensors } from '../helpers/write-safetensors.js';

const TIME_LIMIT_MS = 2000;
const LIMITS = { numRuns: 20_000, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: false };
/** A claimed size must never be allocated; the files here are far smaller. */
const MAX_GROWTH_BYTES = 256 * 2 ** 20;
const FIXTURE = fileURLToPath(new URL('../fixtures/models/qwen3/model.safetensors', import.meta.url));

const edgeNumber = fc.constantFrom(
  ...[
    '-1',
    '-0',
    '0',
    '1',
    '2',
    '7',
    '8',
    '127',
    '255',
    '2147483647',
    '2147483648',
    '4294967295',
    '4294967296',
  ],
  ...[
    '9007199254740991',
    '9007199254740992',
    '9007199254740993',
    '9223372036854775807',
    '9223372036854775808',
  ],
  ...[
    '18446744073709551615',
    '18446744073709551616',
    '1e308',
    '1e999',
    '0.5',
    '1.0',
    'NaN',
    'null',
    '"1"',
    '[]',
    '{}',
  ],
);
const dtype = fc.constantFrom(
  'BF16',
  'F16',
  'F32',
  'F64',
  'U8',
  'F4',
  'F6_E2M3',
  'BOOL',
  'C64',
  'X',
  '__proto__',
);

/** JSON text of an entry whose numbers are edges. */
const edgeEntry = fc
  .tuple(dtype, fc.array(edgeNumber, { maxLength: 10 }), edgeNumber, edgeNumber)
  .map(
    ([type, shape, begin, end]) =>
      `{"dtype":"${type}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
  );
const edgeHeader = fc
  .array(fc.tuple(fc.string({ maxLength: 4 }), edgeEntry), { maxLength: 4 })
  .map((entries) => `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${entry}`).join(',')}}`);

/** What must hold of every file that is accepted. */
async function checkFile(path: string, bytes: Uint8Array): Promise<'accepted' | 'refused'> {
  await writeFile(path, bytes);
  try {
    const { tensors } = await readSafetensorsHeader(path);
    const sorted = [...tensors.values()].sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
    let position = sorted[0]?.offset ?? bytes.length;
    for (const { offset, byteLength, shape } of sorted) {
      expect(offset).toBe(position);
      expect(Number.isSafeInteger(shape.reduce((product, size) => product * size, 1))).toBe(true);
      position += byteLength;
    }
    expect(position).toBe(bytes.length);
    return 'accepted';
  } catch (error) {
    if (!(error instanceof FdqError)) throw error;
    expect(error.code).toBe('invalid_checkpoint');
    return 'refused';
  }
}

/** Runs a property over files and says how many were accepted. */
async function fuzz(files: fc.Arbitrary<Uint8Array>): Promise<number> {
  const path = join(await createTempDir(), 'fuzz.safetensors');
  const before = process.memoryUsage();
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(files, async (bytes) => {
      if ((await checkFile(path, bytes)) === 'accepted') accepted++;
    }),
    LIMITS,
  );
  const after = process.memoryUsage();
  expect(after.rss - before.rss).toBeLessThan(MAX_GROWTH_BYTES);
  return accepted;
}

describe('readSafetensorsHeader throws FdqError or proves every size', () => {
  it('for mutations of a valid file', async () => {
    const valid = buildSafetensors(
      {
        a: { dtype: 'F32', shape: [2, 2] },
        b: { dtype: 'BF16', shape: [3] },
        c: { dtype: 'U8', shape: [5] },
      },
      { format: 'pt' },
    );
    const mutation = fc.record({
      at: fc.nat(valid.length - 1),
      remove: fc.nat(4),
      insert: fc.oneof(
        fc.uint8Array({ maxLength: 3 }),
        edgeNumber.map((text) => Buffer.from(text)),
        fc.constantFrom('{', '}', '[', ']', ',', ':', '"', '\\').map((text) => Buffer.from(text)),
      ),
      repairsLength: fc.boolean(),
    });
    const files = fc.array(mutation, { maxLength: 3 }).map((mutations) => {
      let bytes: Buffer = Buffer.from(valid);
      for (const { at, remove, insert, repairsLength } of mutations) {
        const grown = insert.length - Math.min(remove, Math.max(0, bytes.length - at));
        bytes = Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + remove)]);
        // A header that grew or shrank, with the length to match: gets past the first checks.
        if (repairsLength && at >= 8 && bytes.length >= 8) {
          const length = bytes.readBigUInt64LE() + BigInt(grown);
          if (length >= 0n && length < 1n << 64n) bytes.writeBigUInt64LE(length);
        }
      }
      return bytes;
    });
    expect(await fuzz(files)).toBeGreaterThan(0);
  });

  it('for entries made of edge numbers', async () => {
    const files = fc
      .tuple(edgeHeader, fc.uint8Array({ maxLength: 16 }))
      .map(([header, data]) => buildRawSafetensors({ header, data }));
    await fuzz(files);
  });

  it('for any JSON and any claimed length', async () => {
    const files = fc
      .tuple(
        fc.json(),
        fc.option(fc.bigInt(0n, (1n << 64n) - 1n), { nil: undefined }),
        fc.uint8Array({ maxLength: 8 }),
      )
      .map(([header, claimedLength, data]) =>
        buildRawSafetensors({ header, data, ...(claimedLength === undefined ? {} : { claimedLength }) }),
      );
    await fuzz(files);
  });

  it('for a real header with bytes changed', async () => {
    const real = readFileSync(FIXTURE);
    const header = real.subarray(8, 8 + Number(real.readBigUInt64LE()));
    const files = fc.array(fc.tuple(fc.nat(header.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 });
    await fuzz(
      files.map((changes) => {
        const changed = Buffer.from(header);
        for (const [at, value] of changes) changed[at] = value;
        return buildRawSafetensors({ header: changed, data: new Uint8Array(64) });
      }),
    );
  });
});

describe('parseWeightIndex', () => {
  it('throws FdqError or gives plain file names', () => {
    const name = fc.oneof(
      fc.string(),
      fc.constantFrom(
        'm.safetensors',
        '../m.safetensors',
        '/m.safetensors',
        'a\\b.safetensors',
        '\u0000.safetensors',
      ),
    );
    const index = fc.oneof(
      fc.record({ weight_map: fc.dictionary(fc.string(), fc.oneof(name, fc.jsonValue())) }),
      fc.jsonValue(),
    );
    fc.assert(
      fc.property(index, (value) => {
        try {
          for (const shard of parseWeightIndex(Buffer.from(JSON.stringify(value)), 'index').shards) {
            expect(shard).toMatch(/^[^/\\\0]+\.safetensors$/);
          }
        } catch (error) {
          if (!(error instanceof FdqError)) throw error;
        }
      }),
      LIMITS,
    );
  });
});
