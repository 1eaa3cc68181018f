#include "cpu/kv_lanes_avx512.h"
// The kernels are written over the Vec above.
#include "cpu/attention_kernel.h"
#include "cpu/attention_pairs.h"
#include "cpu/attention_prepare.h"

namespace fdq {

AttentionKernels attention_kernels_avx512bf16(KvType pool) { return kernels_for_pool<PairProducts>(pool); }

}  // namespace fdq
