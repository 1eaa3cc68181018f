import { describe, expect, it } from 'vitest';
import { FdqError } from '../../../src/errors.js';
import { GraphBuilder } from '../../../src/graph/builder.js';
import { parseModel, serializeModel } from '../../../src/graph/onnx.js';

const FILE = '/models/a "b".onnx';

function buildModel(): Uint8Array {
  const builder = GraphBuilder.create('small', new Map([['', 21]]));
  const x = builder.input('x', 'float32', [2]);
  const y = builder.value({
    opType: 'Identity',
    inputs: [x],
    output: { dataType: 'float32', shape: [2] },
  });
  builder.output(y);
  return serializeModel(builder.build());
}

function withIrVersion(version: number): Uint8Array {
  const bytes = buildModel();
  expect([...bytes.subarray(0, 2)]).toEqual([8, 10]); // field 1 as a varint, and its value
  bytes[1] = version;
  return bytes;
}

function refusal(bytes: Uint8Array, options: { readonly remedy?: string } = {}): FdqError {
  try {
    parseModel(bytes, { dir: '/models', file: FILE, ...options });
  } catch (error) {
    if (error instanceof FdqError) return error;
  }
  throw new Error('Expected a refusal');
}

const text = (content: string): Uint8Array => Buffer.from(content);
const LFS = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12\n`;
const FETCH = /^Export or download the ONNX model again/;

const CASES: readonly {
  readonly what: string;
  readonly bytes: Uint8Array;
  readonly code?: FdqError['code'];
  readonly says: string;
  readonly advice?: RegExp;
}[] = [
  { what: 'an empty file', bytes: new Uint8Array(), says: 'The file is empty.' },
  { what: 'zeros', bytes: new Uint8Array(4096), says: 'The file holds nothing but zero bytes.' },
  { what: 'a word', bytes: text('hello'), says: 'The file is text, not an ONNX model.' },
  { what: 'a page', bytes: text(`<html>${'é'.repeat(600)}</html>`), says: 'The file is text' },
  { what: 'a pointer of Git LFS', bytes: text(LFS), says: 'a pointer of Git LFS' },
  { what: 'a program', bytes: text('\x7fELF\x02\x01\x01\0\0'), says: 'its protobuf encoding is damaged.' },
  { what: 'a cut model', bytes: buildModel().subarray(0, -20), says: 'The file is cut short or damaged' },
  { what: 'a message without a version', bytes: buildModel().subarray(2), says: 'it states no IR version.' },
  {
    what: 'a version of the past',
    bytes: withIrVersion(2),
    code: 'unsupported_model',
    says: 'Expected IR version 3 to 13 but the model has 2.',
    advice: /^Export the model again with a current version/,
  },
  {
    what: 'a version of the future',
    bytes: withIrVersion(99),
    code: 'unsupported_model',
    says: 'Expected IR version 3 to 13 but the model has 99.',
    advice: /^Export the model again for IR version 13 or older/,
  },
];

describe('parseModel names the file and what is wrong with', () => {
  it.each(CASES)('$what', ({ bytes, code = 'invalid_checkpoint', says, advice = FETCH }) => {
    const error = refusal(bytes);
    expect(error.message).toContain(`Cannot read the ONNX model ${JSON.stringify(FILE)}. `);
    expect(error.message).toContain(says);
    expect({ code: error.code, param: error.param }).toEqual({ code, param: FILE });
    expect(error.suggestions).toEqual([expect.stringMatching(advice)]);
  });

  it('every length a model may be cut to', () => {
    const whole = buildModel();
    for (let length = 0; length < whole.length; length++) {
      expect(refusal(whole.subarray(0, length)).message).toContain(JSON.stringify(FILE));
    }
  });

  it("a damaged file that the caller's remedy fits", () => {
    expect(refusal(new Uint8Array(), { remedy: 'Convert again.' }).suggestions).toEqual(['Convert again.']);
    expect(refusal(withIrVersion(99), { remedy: 'Convert again.' }).suggestions).not.toContain(
      'Convert again.',
    );
  });
});
