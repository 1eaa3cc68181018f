import type { IsaName } from '../runtime/addon.js';

/** What decides which kernel computes a linear layer. */
export interface KernelRequest {
  /** Number format of the weights, or the float type they are stored as. */
  readonly format: string;
  /** Activation rule of the QuantLinear node. */
  readonly activation: string;
  readonly compute: string;
  readonly isa: IsaName;
}

const FLOAT_FORMATS: readonly string[] = ['float32', 'float16', 'bfloat16'];

/**
 * The kernel that custom-ops/cpu/linear.cc chooses, as `fdq <instruction set>: <weights> × <inputs>`: those that
 * multiply bfloat16 are taken where codes and inputs are exact in it, else those that multiply float32.
 */
export function describeKernel({ format, activation, compute, isa }: KernelRequest): string {
  const inPanels = !FLOAT_FORMATS.includes(format);
  const rounded = inPanels && activation !== 'none';
  const exact = inPanels || format === 'bfloat16';
  const inputs = rounded ? activation : compute;
  const multipliesBf16 = exact && (rounded || compute === 'bfloat16');
  // Integers times integers have kernels of their own where bfloat16 is multiplied in vectors.
  const areIntegers = activation.startsWith('int8') && (format === 'int8' || format === 'int4');
  if (areIntegers && isa === 'avx512_bf16') return `fdq avx512_vnni: ${format} × ${inputs}`;
  const hasBf16 = isa === 'amx' || isa === 'avx512_bf16';
  return `fdq ${hasBf16 && !multipliesBf16 ? 'avx512' : isa}: ${format} × ${inputs}`;
}
