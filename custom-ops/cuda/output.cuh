// What a product ends with: rounding, bias, and the last of the blocks that share a tile.
#pragma once

#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/warp.cuh"

namespace fdq::cuda {

// y[token, row], rounded; adds the bias.
__device__ __forceinline__ void store_output(float value, int token, int row, const float* bias, void* y,
                                             int64_t y_stride, ElementType element) {
  if (bias != nullptr) value += bias[row];
  const int64_t at = token * y_stride + row;
  if (element == ElementType::kFloat32) {
    static_cast<float*>(y)[at] = value;
  } else {
    const uint32_t pair = element == ElementType::kFloat16 ? ptx::to_float16_pair(value, 0.0f)
                                                           : ptx::to_bfloat16_pair(value, 0.0f);
    static_cast<uint16_t*>(y)[at] = static_cast<uint16_t>(pair);
  }
}

// The sum of one element over the kWarps that share the k of a block: each wrote [tokens][kPitch] to shared
// memory.
template <int kWarps, int kPitch>
__device__ __forceinline__ float add_warps(const float* shared, int tokens, int token, int row) {
  float sum = 0.0f;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += shared[(warp * tokens + token) * kPitch + row];
  return sum;
}

// By all threads of a block, after they wrote its part: whether this block is the last of `blocks` that count
// on `counter`; then the parts of all are there to be read and the counter is 0 again. `flag` is in shared
// memory.
__device__ __forceinline__ bool is_last_block(uint32_t* counter, int blocks, uint32_t* flag) {
  ptx::sync_block();  // the release below also covers what the other threads wrote before it
  if (threadIdx.x == 0) {
    *flag = ptx::atomic_add_acq_rel(counter, 1) == static_cast<uint32_t>(blocks) - 1 ? 1u : 0u;
    if (*flag != 0) *counter = 0;
  }
  ptx::sync_block();
  return *flag != 0;
}

}  // namespace fdq::cuda
