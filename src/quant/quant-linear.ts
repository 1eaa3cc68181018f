import type {
  Attribute,
  DataType,
  GraphNode,
  Initializer,
  QuantizedLayer,
  QuantizedPart,
} from '../graph/ir.js';
import type { ActivationRule } from './activation.js';
import { blockScaleShape, packedWeightShape, scaleShape } from './packed-layout.js';
import { NATIVE_DATA_TYPES } from './scheme.js';
import type { BlockScaleType, EmitRequest, EmitResult, NativeFormat } from './scheme.js';

export const FDQ_DOMAIN = 'fdq';
export const FDQ_VERSION = 1;
export const QUANT_LINEAR = 'QuantLinear';

export const QUANT_LINEAR_OP = { domain: FDQ_DOMAIN, opType: QUANT_LINEAR, version: FDQ_VERSION } as const;

/** Types block scales have in ONNX; e8m0 is younger than what ONNX Runtime reads. */
const BLOCK_SCALE_TYPES: Readonly<Record<BlockScaleType, DataType>> = {
  e4m3: 'float8e4m3fn',
  e8m0: 'uint8',
  bfloat16: 'bfloat16',
};

export interface QuantLinearFormat {
  /** Canonical scheme name. */
  readonly scheme: string;
  readonly native: NativeFormat;
  readonly activation: ActivationRule;
  /** Of the static activation rules. */
  readonly activationScale?: number;
  /** Tensors that are fused in the float model have one tensor scale. */
  readonly sharesTensorScale?: boolean;
}

/**
 * A QuantLinear over panels: initializers `<weight>` and, where the format has them, `<weight>.scales`,
 * `<weight>.block_scales` and `<weight>.zero_points`, produced together from the members.
 */
export function emitQuantized(request: EmitRequest, format: QuantLinearFormat): EmitResult {
  const { weight, members, node } = request;
  const { native } = format;
  const shares = format.sharesTensorScale === true && request.fused.length > 1;
  const layer: QuantizedLayer = {
    node,
    scheme: format.scheme,
    members,
    ...(shares ? { scaleGroup: request.fused } : {}),
  };
  const { rows, k } = stackedShape(request);
  const part = (kind: QuantizedPart, dataType: DataType, shape: readonly number[]): Initializer => ({
    name: kind === 'weight' ? weight.name : `${weight.name}.${kind}`,
    dataType,
    shape,
    data: { kind: 'quantized', layer, part: kind },
  });
  const { block } = native;
  const packed = part('weight', NATIVE_DATA_TYPES[native.format], packedWeightShape(rows, k, native.format));
  const scales = native.groupN === -1 ? undefined : part('scales', 'float32', scaleShape(rows, k, native));
  const blockScales =
    block === undefined
      ? undefined
      : part('block_scales', BLOCK_SCALE_TYPES[block.type], blockScaleShape(rows, k, native));
  const zeroPoints =
    native.asymmetric === true ? part('zero_points', 'int8', scaleShape(rows, k, native)) : undefined;
  return {
    node: quantLinear(request, { scales, blockScales, zeroPoints }, format),
    initializers: [packed, scales, blockScales, zeroPoints].filter(
      (initializer) => initializer !== undefined,
    ),
  };
}

/** A QuantLinear that reads the weight as it is stored. */
export function emitStored(request: EmitRequest): EmitResult {
  return { node: quantLinear(request, {}, null), initializers: [request.weight] };
}

interface ScaleInputs {
  readonly scales?: Initializer | undefined;
  readonly blockScales?: Initializer | undefined;
  readonly zeroPoints?: Initializer | undefined;
}

function quantLinear(
  request: EmitRequest,
  { scales, blockScales, zeroPoints }: ScaleInputs,
  format: QuantLinearFormat | null,
): GraphNode {
  const { rows, k } = stackedShape(request);
  const { groupN, groupK, block } = format?.native ?? { groupN: 1, groupK: 0, block: undefined };
  return {
    name: request.node,
    domain: FDQ_DOMAIN,
    opType: QUANT_LINEAR,
    inputs: [
      request.x,
      request.weight.name,
      scales?.name ?? '',
      request.bias,
      ...(blockScales === undefined && zeroPoints === undefined ? [] : [blockScales?.name ?? '']),
      ...(zeroPoints === undefined ? [] : [zeroPoints.name]),
    ],
    outputs: [request.output],
    attributes: {
      format: text(format === null ? request.weight.dataType : format.native.format),
      k: integer(k),
      rows: { type: 'ints', value: rows },
      group_n: integer(groupN),
      group_k: integer(groupK),
      block_k: integer(block?.columns ?? 0),
      block_type: text(block?.type ?? ''),
      activation: text(format === null ? 'none' : format.activation),
      activation_scale: { type: 'float', value: format?.activationScale ?? 0 },
      compute: text(request.compute),
    },
  };
}

function stackedShape({ weight, members }: EmitRequest): {
  readonly rows: readonly number[];
  readonly k: number;
} {
  return { rows: members.map((member) => member.shape[0] as number), k: weight.shape[1] as number };
}

function text(value: string): Attribute {
  return { type: 'string', value };
}

function integer(value: number): Attribute {
  return { type: 'int', value };
}
