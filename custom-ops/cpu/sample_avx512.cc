#include "cpu/vector_math_avx512.h"
// The kernels are written over the Vec above.
#include "cpu/sample_kernel.h"

namespace fdq {

SampleKernels sample_kernels_avx512() { return kSampleKernels; }

}  // namespace fdq
