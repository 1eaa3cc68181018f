#include "cpu/vector_math_scalar.h"
// The kernels are written over the Vec above.
#include "cpu/sample_kernel.h"

namespace fdq {

SampleKernels sample_kernels_scalar() { return kSampleKernels; }

}  // namespace fdq
