#include "cpu/vector_math_avx2.h"
// The kernels are written over the Vec above.
#include "cpu/attention_kernel.h"
#include "cpu/attention_prepare.h"

namespace fdq {

AttentionKernels attention_kernels_avx2() { return {prepare_token, attend_tile}; }

}  // namespace fdq
