import type { Attribute, GraphNode, Initializer, QuantizedLayer } from '../graph/ir.js';
import { packedWeightShape, scaleShape } from './packed-layout.js';
import { NATIVE_DATA_TYPES } from './scheme.js';
import type { EmitRequest, EmitResult, NativeFormat } from './scheme.js';

export const FDQ_DOMAIN = 'fdq';
export const FDQ_VERSION = 1;
export const QUANT_LINEAR = 'QuantLinear';

export const QUANT_LINEAR_OP = { domain: FDQ_DOMAIN, opType: QUANT_LINEAR, version: FDQ_VERSION } as const;

/**
 * What happens to x before the product: ActivationRule of custom-ops/include/fdq/formats.h. The static rules have
 * the scale of a checkpoint.
 */
export type ActivationRule =
  'none' | 'e4m3_group128' | 'e4m3_token' | 'int8_token' | 'e4m3_static' | 'int8_static';

export interface QuantLinearFormat {
  /** Canonical scheme name. */
  readonly scheme: string;
  readonly native: NativeFormat;
  readonly activation: ActivationRule;
}

/** A QuantLinear over panels: initializers `<weight>` and `<weight>.scales` produced together from the members. */
export function emitQuantized(request: EmitRequest, format: QuantLinearFormat): EmitResult {
  const { weight, members, node } = request;
  const { native } = format;
  const layer: QuantizedLayer = { node, scheme: format.scheme, members };
  const { rows, k } = stackedShape(request);
  const packed: Initializer = {
    name: weight.name,
    dataType: NATIVE_DATA_TYPES[native.format],
    shape: packedWeightShape(rows, k, native.format),
    data: { kind: 'quantized', layer, part: 'weight' },
  };
  const scales: Initializer = {
    name: `${weight.name}.scales`,
    dataType: 'float32',
    shape: scaleShape(rows, k, native),
    data: { kind: 'quantized', layer, part: 'scales' },
  };
  return { node: quantLinear(request, scales.name, format), initializers: [packed, scales] };
}

/** A QuantLinear that reads the weight as it is stored. */
export function emitStored(request: EmitRequest): EmitResult {
  return { node: quantLinear(request, '', null), initializers: [request.weight] };
}

function quantLinear(request: EmitRequest, scales: string, format: QuantLinearFormat | null): GraphNode {
  const { rows, k } = stackedShape(request);
  return {
    name: request.node,
    domain: FDQ_DOMAIN,
    opType: QUANT_LINEAR,
    inputs: [request.x, request.weight.name, scales, request.bias],
    outputs: [request.output],
    attributes: {
      format: text(format === null ? request.weight.dataType : format.native.format),
      k: integer(k),
      rows: { type: 'ints', value: rows },
      group_n: integer(format === null ? 1 : format.native.groupN),
      group_k: integer(format === null ? 0 : format.native.groupK),
      activation: text(format === null ? 'none' : format.activation),
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
