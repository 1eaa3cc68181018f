import { createIntegerFamily } from './integer-scheme.js';
import { packInt4, unpackInt4 } from './numerics/int4.js';

/** int4 weights in -7..7, two a byte, FastDeploy's `wint4`. */
export const wint4 = createIntegerFamily({
  name: 'wint4',
  aliases: ['w4a16', 'int4', 'weight_only_int4'],
  format: 'int4',
  maxCode: 7,
  packing: {
    pack: (codes, rows, k) => packInt4(asSigned(codes), rows, k),
    unpack: (packed, rows, k) => new Uint8Array(unpackInt4(packed, rows, k).buffer),
  },
});

function asSigned(codes: Uint8Array): Int8Array {
  return new Int8Array(codes.buffer, codes.byteOffset, codes.byteLength);
}
