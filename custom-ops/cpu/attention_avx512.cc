#include "cpu/kv_lanes_avx512.h"
// The kernels are written over the Vec above.
#include "cpu/attention_float.h"
#include "cpu/attention_kernel.h"
#include "cpu/attention_prepare.h"

namespace fdq {

AttentionKernels attention_kernels_avx512(KvType pool) {
  if (pool == KvType::kFloat32) return kernels_over<FloatProducts, float>();
  return kernels_for_pool<FloatProducts>(pool);
}

}  // namespace fdq
