#include "cpu/vector_math_scalar.h"
// The kernels are written over the Vec above.
#include "cpu/attention_float.h"
#include "cpu/attention_kernel.h"
#include "cpu/attention_prepare.h"

namespace fdq {

AttentionKernels attention_kernels_scalar(KvType pool) {
  if (pool == KvType::kBFloat16) return kernels_over<FloatProducts, uint16_t>();
  return kernels_over<FloatProducts, float>();
}

}  // namespace fdq
