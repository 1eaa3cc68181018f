// The end of the e4m3 products that store element by element.
#pragma once

#include "cuda/output.cuh"

namespace fdq::cuda {

// y[token, row] with the scales of rows, where W has those.
template <bool kGroups, typename Parameters>
__device__ __forceinline__ void store_fp8(float value, int token, int row, const Parameters& p) {
  if constexpr (!kGroups)
    value *= (p.x_scales == nullptr ? p.static_scale : p.x_scales[token]) * p.w_scales[row];
  store_output(value, token, row, p.bias, p.y, p.y_stride, p.y_element);
}

}  // namespace fdq::cuda
