import { BugError } from '../errors.js';
import type { GraphNode, Initializer, StoredFormat, StoredWeight } from '../graph/ir.js';
import { ACTIVATIONS } from './activation.js';
import { matrixShape } from './float-matrix.js';
import { decodeE2m1 } from './numerics/fp4.js';
import { decodeE4m3 } from './numerics/fp8.js';
import { signExtend, unpackCodes } from './numerics/packing.js';
import { canonicalColumns, codeBits, packedBytes } from './packed-layout.js';
import { emitQuantized, QUANT_LINEAR_OP } from './quant-linear.js';
import { resolveScheme } from './registry.js';
import type { EmitRequest, EmitResult, QuantizedParts, QuantKey, QuantScheme } from './scheme.js';

type StoredNative = StoredFormat['native'];

const ELEMENTS = { int8: 'int8', int4: 'int4', e2m1: 'float4e2m1', e4m3: 'float8e4m3fn' } as const;

const DECODERS: Readonly<Record<StoredNative['format'], (code: number) => number>> = {
  int8: (code) => signExtend(code, 8),
  int4: (code) => signExtend(code, 4),
  e2m1: decodeE2m1,
  e4m3: decodeE4m3,
};

const schemes = new WeakMap<StoredFormat, QuantScheme>();

/**
 * The scheme of a weight that lies quantized in its checkpoint: it computes with the codes as they are and quantizes
 * nothing. The same object for weights of the same format, so that they can be one layer.
 */
export function schemeOfStored({ method, scheme: name, format }: StoredWeight): QuantScheme {
  const known = schemes.get(format);
  if (known !== undefined) return known;
  const scheme = createStoredScheme(name, method, format);
  schemes.set(format, scheme);
  return scheme;
}

/**
 * What a scheme of a report does to weights and inputs, also one that only checkpoints have: those are named by the
 * nearest scheme and how they differ, e.g. `wint4:g32:asymmetric` or `fp8_per_channel:weight-only`.
 */
export function formatOfScheme(name: string): Pick<QuantScheme, 'weight' | 'activation'> {
  const [base = name, ...differences] = name.split(':');
  const { weight, activation } = resolveScheme(base);
  if (differences.includes('weight-only')) return { weight, activation: null };
  const rounded = differences.find((difference) => difference.startsWith('e4m3_'));
  return { weight, activation: rounded === undefined ? activation : ACTIVATIONS.e4m3_token };
}

function createStoredScheme(name: string, method: string, format: StoredFormat): QuantScheme {
  const { native, activation } = format;
  return Object.freeze<QuantScheme>({
    name,
    aliases: [],
    summary: `as a ${method} checkpoint stores it`,
    weight: describeWeight(native),
    activation: activation === 'none' ? null : ACTIVATIONS[activation],
    requires: { devices: ['cpu'], op: QUANT_LINEAR_OP },
    native,
    online: false,
    rowAlign: 1,
    accepts: () => 'is not what the checkpoint stores in this format',
    bytes: ({ shape }) => {
      const { n, k } = matrixShape(shape);
      return packedBytes([n], k, native);
    },
    quantize: ({ name: tensor }) => {
      throw new BugError(`${tensor} is stored quantized and cannot be quantized again`);
    },
    dequantize: ({ shape }, parts) => dequantizeStored(matrixShape(shape), format, parts),
    emit: (request) => emitStoredFormat(request, name, format),
  });
}

function describeWeight({ format, groupN, groupK, block, asymmetric }: StoredNative): QuantKey {
  return Object.freeze<QuantKey>({
    element: ELEMENTS[format],
    scaleType: block === undefined ? 'float32' : 'float8e4m3fn',
    ...(block === undefined ? {} : { tensorScale: true }),
    group:
      block === undefined ? [groupN === 0 ? -1 : groupN, groupK === 0 ? -1 : groupK] : [1, block.columns],
    dynamic: false,
    symmetric: asymmetric !== true,
    maxError: { relative: 0, ofScale: 0 },
  });
}

/** Float32 values [n, k] of canonical parts, columns in the order of x. */
function dequantizeStored(
  { n, k }: { readonly n: number; readonly k: number },
  { native, columnOrder }: StoredFormat,
  parts: QuantizedParts,
): Float32Array {
  const { groupN, block } = native;
  const columns = canonicalColumns(k, native);
  const codes = unpackCodes(parts.codes, n, columns, codeBits(native.format));
  const decode = DECODERS[native.format];
  const size = native.groupK === 0 ? k : native.groupK;
  const groups = Math.ceil(k / size);
  const values = new Float32Array(n * k);
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      const group = Math.floor(column / size);
      const at = groupN === 0 ? 0 : Math.floor(row / groupN) * groups + group;
      const blockAt =
        block === undefined ? 0 : row * Math.ceil(k / block.columns) + Math.floor(column / block.columns);
      const narrow = block === undefined ? 1 : decodeE4m3(parts.blockScales?.[blockAt] ?? 0);
      const code = decode(codes[row * columns + column] as number) - (parts.zeroPoints?.[at] ?? 0);
      // The first product is exact; the assignment rounds the second.
      values[row * k + (columnOrder?.[column] ?? column)] = code * narrow * (parts.scales[at] as number);
    }
  }
  return values;
}

/** With the columns of x in the order of the codes, where that is another one. */
function emitStoredFormat(request: EmitRequest, name: string, format: StoredFormat): EmitResult {
  const { native, activation, activationScale, columnOrder } = format;
  const quantLinear = {
    scheme: name,
    native,
    activation,
    ...(activationScale === undefined ? {} : { activationScale }),
  };
  if (columnOrder === undefined) return emitQuantized(request, quantLinear);
  const order: Initializer = {
    name: `${request.weight.name}.column_order`,
    dataType: 'int32',
    shape: [columnOrder.length],
    data: {
      kind: 'inline',
      bytes: new Uint8Array(columnOrder.buffer, columnOrder.byteOffset, columnOrder.byteLength),
    },
  };
  const gather: GraphNode = {
    name: `${request.node}/column_order/Gather`,
    domain: '',
    opType: 'Gather',
    inputs: [request.x, order.name],
    outputs: [`${request.node}/column_order/Gather_output_0`],
    attributes: { axis: { type: 'int', value: 1 } },
  };
  const result = emitQuantized({ ...request, x: gather.outputs[0] as string }, quantLinear);
  return { node: result.node, before: [gather], initializers: [...result.initializers, order] };
}
