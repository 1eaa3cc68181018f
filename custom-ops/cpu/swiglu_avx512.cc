#include "cpu/vector_math_avx512.h"
// The kernels are written over the Vec above.
#include "cpu/swiglu_kernel.h"

namespace fdq {

SwigluKernels swiglu_kernels_avx512() { return {swiglu_row, exp_array}; }

}  // namespace fdq
