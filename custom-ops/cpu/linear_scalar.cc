#include "cpu/linear_ops_scalar.h"
// The kernels are written over the policy above.
#include "cpu/linear_float.h"

namespace fdq {

LinearKernels linear_kernels_scalar() { return float_kernels(1.0f); }

}  // namespace fdq
