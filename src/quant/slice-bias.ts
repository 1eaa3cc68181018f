import { BugError } from '../errors.js';
import type { Initializer, WeightSource } from '../graph/ir.js';

/** The bias as QuantLinear reads it: 16-bit checkpoint tensors are widened while they are loaded. */
export function asFloat32(bias: Initializer): Initializer {
  return bias.dataType === 'float32' ? bias : { ...bias, dataType: 'float32' };
}

/** Elements `from` to `to` of a float32 vector, under a new name; nothing is read. */
export function sliceBias(
  bias: Initializer,
  name: string,
  [from, to]: readonly [number, number],
): Initializer {
  const { data } = bias;
  const unit = Float32Array.BYTES_PER_ELEMENT;
  const part = { name, dataType: bias.dataType, shape: [to - from] };
  switch (data.kind) {
    case 'inline':
      return { ...part, data: { ...data, bytes: data.bytes.slice(unit * from, unit * to) } };
    case 'external':
      return {
        ...part,
        data: { ...data, offset: data.offset + unit * from, byteLength: unit * (to - from) },
      };
    case 'weight':
      return { ...part, data: { ...data, members: sliceMembers(data.members, from, to) } };
    case 'quantized':
      throw new BugError(`bias ${bias.name} is quantized`);
  }
}

function sliceMembers(members: readonly WeightSource[], from: number, to: number): readonly WeightSource[] {
  let start = 0;
  return members.flatMap((member) => {
    const size = member.shape[0] as number;
    const first = Math.max(from - start, 0);
    const last = Math.min(to - start, size);
    start += size;
    if (first >= last) return [];
    if (first === 0 && last === size) return [member];
    const unit = member.byteLength / size;
    return [
      {
        ...member,
        shape: [last - first],
        offset: member.offset + unit * first,
        byteLength: unit * (last - first),
      },
    ];
  });
}
