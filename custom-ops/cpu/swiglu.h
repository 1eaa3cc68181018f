// One token's SwiGLU for each instruction set, and exp over an array as the kernels compute it.
#pragma once

#include <cstdint>

namespace fdq {

struct SwigluKernels {
  // y[i] = silu(x[i]) * x[width + i]
  void (*row)(const float* x, int64_t width, float* y);
  void (*exp_array)(const float* x, int64_t count, float* y);
};

SwigluKernels swiglu_kernels_scalar();
SwigluKernels swiglu_kernels_avx2();
SwigluKernels swiglu_kernels_avx512();

}  // namespace fdq
