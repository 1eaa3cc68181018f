/** Bits of a code that is smaller than a byte. */
export type CodeBits = 2 | 4 | 8;

/** Bytes of a row of `k` codes. */
export function packedRowBytes(k: number, bits: CodeBits): number {
  return Math.ceil((k * bits) / 8);
}

/**
 * Codes, one a byte, to 8 / bits codes a byte, the first in the lowest bits; missing columns of a last byte are 0.
 * Bits above `bits` are dropped: a negative code stays in two's complement.
 * @param codes [rows, k]
 * @returns [rows, ceil(k * bits / 8)]
 */
export function packCodes(codes: Uint8Array, rows: number, k: number, bits: CodeBits): Uint8Array {
  const stride = packedRowBytes(k, bits);
  const packed = new Uint8Array(rows * stride);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < k; column++) {
      const at = row * stride + Math.floor((column * bits) / 8);
      const code = (codes[row * k + column] as number) & mask(bits);
      packed[at] = (packed[at] as number) | (code << ((column * bits) % 8));
    }
  }
  return packed;
}

/** Inverse of `packCodes`, to codes 0 .. 2^bits - 1, [rows, k]. */
export function unpackCodes(packed: Uint8Array, rows: number, k: number, bits: CodeBits): Uint8Array {
  const stride = packedRowBytes(k, bits);
  const codes = new Uint8Array(rows * k);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < k; column++) {
      const byte = packed[row * stride + Math.floor((column * bits) / 8)] as number;
      codes[row * k + column] = (byte >> ((column * bits) % 8)) & mask(bits);
    }
  }
  return codes;
}

/** The value of a code in two's complement; bits above `bits` are ignored. */
export function signExtend(code: number, bits: CodeBits): number {
  const shift = 32 - bits;
  return (code << shift) >> shift;
}

function mask(bits: CodeBits): number {
  return (1 << bits) - 1;
}
