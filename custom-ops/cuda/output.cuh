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

// Bytes of a counter for each tile.
inline int64_t counter_bytes(int64_t tiles) {
  return round_up(tiles * static_cast<int64_t>(sizeof(uint32_t)), 16);
}

// By all threads that `sync` is a barrier of, thread 0 among them, after they wrote their part: whether this
// block is the last of `blocks` that count on `counter`; then the parts of all are there to be read and the
// counter is 0 again. `flag` is in shared memory.
template <typename Sync>
__device__ __forceinline__ bool is_last_block(uint32_t* counter, int blocks, uint32_t* flag,
                                              const Sync& sync) {
  sync();  // the release below also covers what the other threads wrote before it (CUTLASS,
           // generic_barrier.h)
  if (threadIdx.x == 0) {
    *flag = ptx::atomic_add_acq_rel(counter, 1) == static_cast<uint32_t>(blocks) - 1 ? 1u : 0u;
    if (*flag != 0) *counter = 0;
  }
  sync();
  return *flag != 0;
}

}  // namespace fdq::cuda
