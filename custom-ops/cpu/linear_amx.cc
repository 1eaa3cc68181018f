#include "cpu/linear.h"

namespace fdq {

LinearKernels linear_kernels_amx() { return linear_kernels_avx512bf16(); }

}  // namespace fdq
