import type { WeightSource } from '../graph/ir.js';
import type { NativeAddon } from '../runtime/addon.js';
import { checkResult, floatType } from './read-problems.js';

/** Read at a time; the JS thread transposes so much without a pause. */
const SLAB_BYTES = 4 << 20;
/** Side of the squares that are transposed at a time: rows of both sides stay in the first cache. */
const SQUARE = 32;

/**
 * Reads a weight [n, k] that its file has as [k, n].
 * @param from descriptor of the file, or the bytes of the weight
 * @param target [n, k] in the weight's own type
 * @throws UserError `invalid_checkpoint` when the file ends early or cannot be read
 */
export async function readTransposed(
  addon: NativeAddon,
  source: WeightSource,
  from: number | Uint8Array,
  target: Uint8Array<ArrayBuffer>,
): Promise<void> {
  const [n = 0, k = 0] = source.shape;
  const words = floatType(source) === 'float32' ? Uint32Array : Uint16Array;
  const width = words.BYTES_PER_ELEMENT;
  const rows = Math.max(1, Math.min(k, Math.floor(SLAB_BYTES / (n * width))));
  const slab = new Uint8Array(rows * n * width);
  const to = new words(target.buffer, target.byteOffset, n * k);
  for (let start = 0; start < k; start += rows) {
    const count = Math.min(rows, k - start);
    const byteLength = count * n * width;
    const part = slab.subarray(0, byteLength);
    const offset = start * n * width;
    if (typeof from === 'number') {
      const range = { fd: from, offset: source.offset + offset, byteLength };
      checkResult(source, await addon.read({ ...range, target: part }));
    } else part.set(from.subarray(offset, offset + byteLength));
    transpose(new words(slab.buffer, 0, count * n), to, { start, count, n, k });
  }
}

/** Rows `start` .. `start + count - 1` of [k, n] into their columns of [n, k]. */
function transpose(
  from: Uint32Array | Uint16Array,
  to: Uint32Array | Uint16Array,
  {
    start,
    count,
    n,
    k,
  }: { readonly start: number; readonly count: number; readonly n: number; readonly k: number },
): void {
  for (let column = 0; column < n; column += SQUARE) {
    const lastColumn = Math.min(column + SQUARE, n);
    for (let row = 0; row < count; row += SQUARE) {
      const lastRow = Math.min(row + SQUARE, count);
      for (let c = column; c < lastColumn; c++) {
        const base = c * k + start;
        for (let r = row; r < lastRow; r++) to[base + r] = from[r * n + c] as number;
      }
    }
  }
}
