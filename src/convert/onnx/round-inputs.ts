import { intAttribute } from '../../graph/builder.js';
import type { GraphBuilder } from '../../graph/builder.js';
import { elementTypeOf } from '../../graph/data-types.js';
import type { Dimension } from '../../graph/ir.js';
import { refuse } from './lowering.js';

const E4M3_MAX = 448;
const INT8_MAX = 127;
const GROUP = 128;

/** What a layer does to its input before the product, see ActivationRule of custom-ops/include/fdq/formats.h. */
export interface InputRounding {
  readonly rule: string;
  /** Of the rules with a scale from the checkpoint. */
  readonly scale: number;
}

/** A value on its way through the rounding. */
interface Value {
  readonly name: string;
  readonly shape: readonly Dimension[];
}

/**
 * x [tokens, k] rounded as the layer's rule says, in float32: code * scale of the nearest code.
 * @returns x itself where the rule is `none`
 */
export function roundInputs(scope: GraphBuilder, x: string, { rule, scale }: InputRounding): string {
  const { shape } = scope.valueInfo(x);
  const value = { name: x, shape };
  switch (rule) {
    case 'none':
      return x;
    case 'e4m3_token':
    case 'int8_token':
      return roundDynamic(scope, value, rule === 'e4m3_token');
    case 'e4m3_static':
    case 'int8_static': {
      const factor = scope.constantOnce('input_scale', 'float32', [], Float32Array.of(scale));
      return roundBy(scope, value, factor, rule === 'e4m3_static');
    }
    case 'e4m3_group128':
      return roundGroups(scope, value);
    default:
      throw refuse(`the rounding rule ${rule}`, 'Write --format fdq.');
  }
}

/** Each token's groups of 128 columns by themselves; a short last group is padded with zeros. */
function roundGroups(scope: GraphBuilder, { name, shape }: Value): string {
  const k = shape[1] as number;
  const groups = Math.ceil(k / GROUP);
  const padded = groups * GROUP;
  const whole = padded === k ? name : pad(scope, name, padded - k, padded);
  const split = reshape(scope, whole, [-1, groups, GROUP], ['tokens', groups, GROUP]);
  const rounded = roundDynamic(scope, { name: split, shape: ['tokens', groups, GROUP] }, true);
  const joined = reshape(scope, rounded, [-1, padded], ['tokens', padded]);
  if (padded === k) return joined;
  const bounds = [0, k, 1].map((value, index) =>
    scope.constantOnce(`slice_${['start', 'end', 'axis'][index]}_${value}`, 'int64', [1], int64(value)),
  );
  return scope.value({
    opType: 'Slice',
    inputs: [joined, ...bounds],
    output: { dataType: 'float32', shape: ['tokens', k] },
  });
}

/** scale = amax / largest code over the last axis, 1 where that is 0. */
function roundDynamic(scope: GraphBuilder, x: Value, isE4m3: boolean): string {
  const output = { dataType: 'float32', shape: x.shape } as const;
  const row = { dataType: 'float32', shape: [...x.shape.slice(0, -1), 1] } as const;
  const magnitude = scope.value({ opType: 'Abs', inputs: [x.name], output });
  const axis = scope.constantOnce('last_axis', 'int64', [1], int64(-1));
  const largest = scope.value({ opType: 'ReduceMax', inputs: [magnitude, axis], output: row });
  const top = constant(scope, isE4m3 ? E4M3_MAX : INT8_MAX);
  const scale = scope.value({ opType: 'Div', inputs: [largest, top], output: row });
  const isZero = scope.value({
    opType: 'Equal',
    inputs: [scale, constant(scope, 0)],
    output: { dataType: 'bool', shape: row.shape },
  });
  const safe = scope.value({ opType: 'Where', inputs: [isZero, constant(scope, 1), scale], output: row });
  return roundBy(scope, x, safe, isE4m3);
}

function roundBy(scope: GraphBuilder, { name, shape }: Value, scale: string, isE4m3: boolean): string {
  const output = { dataType: 'float32', shape } as const;
  const quotient = scope.value({ opType: 'Div', inputs: [name, scale], output });
  const code = isE4m3 ? throughE4m3(scope, quotient, shape) : toInteger(scope, quotient, shape);
  return scope.value({ opType: 'Mul', inputs: [code, scale], output });
}

/** Ties to even; beyond 448 saturates. */
function throughE4m3(scope: GraphBuilder, quotient: string, shape: readonly Dimension[]): string {
  const to = (type: 'float8e4m3fn' | 'float32', input: string): string =>
    scope.value({
      opType: 'Cast',
      inputs: [input],
      output: { dataType: type, shape },
      attributes: { to: intAttribute(elementTypeOf(type)), saturate: intAttribute(1) },
    });
  return to('float32', to('float8e4m3fn', quotient));
}

/** Ties to even, -127..127. */
function toInteger(scope: GraphBuilder, quotient: string, shape: readonly Dimension[]): string {
  const output = { dataType: 'float32', shape } as const;
  const rounded = scope.value({ opType: 'Round', inputs: [quotient], output });
  const bounds = [constant(scope, -INT8_MAX), constant(scope, INT8_MAX)];
  return scope.value({ opType: 'Clip', inputs: [rounded, ...bounds], output });
}

function pad(scope: GraphBuilder, input: string, columns: number, width: number): string {
  const pads = scope.constantOnce(`pad_${columns}`, 'int64', [4], int64(0, 0, 0, columns));
  return scope.value({
    opType: 'Pad',
    inputs: [input, pads],
    output: { dataType: 'float32', shape: ['tokens', width] },
  });
}

function reshape(
  scope: GraphBuilder,
  input: string,
  sizes: readonly number[],
  shape: readonly Dimension[],
): string {
  const target = scope.constantOnce(
    `to_${sizes.join('_').replace('-', 'n')}`,
    'int64',
    [sizes.length],
    int64(...sizes),
  );
  return scope.value({ opType: 'Reshape', inputs: [input, target], output: { dataType: 'float32', shape } });
}

function constant(scope: GraphBuilder, value: number): string {
  return scope.constantOnce(`value_${value}`, 'float32', [], Float32Array.of(value));
}

function int64(...values: readonly number[]): BigInt64Array {
  return BigInt64Array.from(values, BigInt);
}
