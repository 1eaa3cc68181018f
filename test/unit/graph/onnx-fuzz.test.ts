import { describe, expect, it } from 'vitest';

import { FdqError } from '../../../src/errors.js';
import { parseModel, serializeModel } from '../../../src/graph/onnx.js';
import { inlineOnly, sampleGraph } from './sample-graph.js';
import { fc } from '../../helpers/properties.js';

const TIME_LIMIT_MS = 4_000;

function parseOrRefuse(bytes: Uint8Array): 'parsed' | 'refused' {
  try {
    parseModel(bytes, { dir: '/nonexistent' });
    return 'parsed';
  } catch (error) {
    if (error instanceof FdqError && error.code !== 'internal') return 'refused';
    throw error;
  }
}

describe('parseModel on damaged files', () => {
  const valid = serializeModel(inlineOnly(sampleGraph()));
  const edit = fc.record({
    at: fc.nat(valid.length - 1),
    value: fc.integer({ min: 0, max: 255 }),
    kind: fc.constantFrom('set', 'insert', 'delete', 'cut'),
  });

  it('answers every mutation of a valid model with a graph or an expected error', () => {
    const seen = { parsed: 0, refused: 0 };
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        const bytes = [...valid];
        for (const { at, value, kind } of edits) {
          if (kind === 'set') bytes[at] = value;
          else if (kind === 'insert') bytes.splice(at, 0, value);
          else if (kind === 'delete') bytes.splice(at, 1);
          else bytes.length = Math.min(bytes.length, at);
        }
        seen[parseOrRefuse(Uint8Array.from(bytes))]++;
      }),
      { numRuns: 20_000, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: false },
    );
    expect(seen.refused).toBeGreaterThan(100);
    expect(seen.parsed).toBeGreaterThan(10);
  });

  it('answers random bytes with an expected error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(parseOrRefuse(bytes)).toBe('refused');
      }),
      { numRuns: 5_000, interruptAfterTimeLimit: TIME_LIMIT_MS, markInterruptAsFailure: false },
    );
  });

  it('refuses graphs nested without end instead of running out of stack', () => {
    // GraphProto.node (1) > NodeProto.attribute (5) > AttributeProto.g (6), each around the one before.
    let bytes: Uint8Array = new Uint8Array();
    const wrap = (field: number): void => {
      const length: number[] = [];
      for (let rest = bytes.length; ; rest >>>= 7) {
        length.push(rest > 127 ? (rest & 127) | 128 : rest);
        if (rest <= 127) break;
      }
      bytes = Uint8Array.of((field << 3) | 2, ...length, ...bytes);
    };
    for (let depth = 0; depth < 2_000; depth++) [6, 5, 1].forEach(wrap);
    wrap(7);
    expect(parseOrRefuse(bytes)).toBe('refused');
  });
});
