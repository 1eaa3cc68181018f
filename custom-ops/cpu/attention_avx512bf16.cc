#include "cpu/vector_math_avx512.h"
// The kernels are written over the Vec above.
#include "cpu/attention_kernel.h"
#include "cpu/attention_pairs.h"
#include "cpu/attention_prepare.h"

namespace fdq {

AttentionKernels attention_kernels_avx512bf16() { return kernels_over<PairProducts, uint16_t>(); }

}  // namespace fdq
