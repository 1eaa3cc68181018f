#include "cpu/vector_math_avx2.h"
// The kernels are written over the Vec above.
#include "cpu/sample_kernel.h"

namespace fdq {

SampleKernels sample_kernels_avx2() { return kSampleKernels; }

}  // namespace fdq
