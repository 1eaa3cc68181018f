const NIBBLE = 0xf;

/** Bytes of a row of `k` int4 codes. */
export function int4RowBytes(k: number): number {
  return Math.ceil(k / 2);
}

/**
 * int4 codes, one a byte, to two a byte: column 2i in the low nibble, 2i + 1 in the high one, each in two's
 * complement; a missing last column is 0.
 * @param codes [rows, k], -8..7
 * @returns [rows, ceil(k / 2)]
 */
export function packInt4(codes: Int8Array, rows: number, k: number): Uint8Array {
  const stride = int4RowBytes(k);
  const packed = new Uint8Array(rows * stride);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < k; column++) {
      const nibble = (codes[row * k + column] as number) & NIBBLE;
      const at = row * stride + (column >> 1);
      packed[at] = (packed[at] as number) | (nibble << (4 * (column & 1)));
    }
  }
  return packed;
}

/** Inverse of `packInt4`: [rows, ceil(k / 2)] bytes to [rows, k] codes, -8..7. */
export function unpackInt4(packed: Uint8Array, rows: number, k: number): Int8Array {
  const stride = int4RowBytes(k);
  const codes = new Int8Array(rows * k);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < k; column++) {
      codes[row * k + column] = readInt4(packed[row * stride + (column >> 1)] as number, column & 1);
    }
  }
  return codes;
}

/** The signed value of the low (0) or high (1) nibble of a byte. */
export function readInt4(byte: number, nibble: number): number {
  return (byte << (28 - 4 * nibble)) >> 28;
}
