import { activationRuleOf } from './activation.js';
import { acceptsFloatMatrix, matrixShape, readRows } from './float-matrix.js';
import { packCodes, unpackCodes } from './numerics/packing.js';
import { dequantizeTiles, quantizeTiles } from './numerics/tiles.js';
import type { TileRule } from './numerics/tiles.js';
import { codeBits, packedBytes } from './packed-layout.js';
import { emitQuantized, QUANT_LINEAR_OP } from './quant-linear.js';
import type { NativeFormat, QuantKey, QuantScheme } from './scheme.js';

/** What distinguishes one symmetric scheme with float32 scales alone from another. */
export interface TileScheme
  extends
    Pick<QuantScheme, 'name' | 'aliases' | 'summary' | 'activation'>,
    Pick<TileRule, 'findScale' | 'encode'> {
  readonly native: NativeFormat & { readonly groupN: 0 | 1 | 128 };
  readonly weight: Pick<QuantKey, 'element' | 'maxError'>;
  /** Value of a code; negative integers come in two's complement of as many bits as the format has. */
  readonly decode: (code: number) => number;
}

/** A scheme whose weights are `encode(w / scale)` with one scale for each tile of `native`. */
export function createTileScheme(spec: TileScheme): QuantScheme {
  const { native, findScale, encode, decode } = spec;
  const tile = { rows: native.groupN, columns: native.groupK };
  const rowAlign = native.groupN === 0 ? Infinity : native.groupN;
  const bits = codeBits(native.format);
  return Object.freeze<QuantScheme>({
    name: spec.name,
    aliases: spec.aliases,
    summary: spec.summary,
    weight: Object.freeze<QuantKey>({
      ...spec.weight,
      scaleType: 'float32',
      group: [tile.rows === 0 ? -1 : tile.rows, tile.columns === 0 ? -1 : tile.columns],
      dynamic: false,
      symmetric: true,
    }),
    activation: spec.activation,
    requires: { devices: ['cpu'], op: QUANT_LINEAR_OP },
    native,
    online: true,
    rowAlign,
    accepts: acceptsFloatMatrix,
    bytes: ({ shape }) => {
      const { n, k } = matrixShape(shape);
      return packedBytes([n], k, native);
    },
    quantize: (tensor, chunk) => {
      const matrix = readRows(tensor, chunk, rowAlign);
      const { codes, scales } = quantizeTiles(matrix, { ...tile, findScale, encode });
      return { codes: packCodes(codes, matrix.rows, matrix.k, bits), scales };
    },
    dequantize: ({ shape }, parts) => {
      const { n, k } = matrixShape(shape);
      const codes = unpackCodes(parts.codes, n, k, bits);
      return dequantizeTiles({ codes, scales: parts.scales }, k, tile, decode);
    },
    emit: (request) =>
      emitQuantized(request, {
        scheme: spec.name,
        native,
        activation: activationRuleOf(spec.activation),
      }),
  });
}
