#include "cpu/linear_ops_avx512.h"
// The kernels are written over the policy above.
#include "cpu/linear_float.h"

namespace fdq {

LinearKernels linear_kernels_avx512() { return float_kernels(256.0f); }

}  // namespace fdq
