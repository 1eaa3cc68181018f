// int8 and int4 codes of layout kFragments as the A operand of m16n8k16.
#pragma once

#include "cuda/output.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/weight_only.cuh"

namespace fdq::cuda {

// Bytes of a panel's chunk of 64 k, and of a lane in it.
template <WeightFormat kFormat>
constexpr int kChunkBytes = kFormat == WeightFormat::kInt4 ? 512 : 1024;
constexpr int kLoadBytes = ptx::kWarp * static_cast<int>(sizeof(ptx::Quad));  // of a warp, 16 bytes a lane

// What expand_steps subtracts for rows g and g + 8 where no zero points are loaded.
template <bool kFloat16>
__device__ __forceinline__ void clear_offsets(uint32_t (&offsets)[2]) {
  offsets[0] = offsets[1] = ptx::int4_offset<kFloat16>(0);
}
// The same with the zero points of a panel's 16 rows.
template <bool kFloat16>
__device__ __forceinline__ void load_offsets(uint32_t (&offsets)[2], const int8_t* zero_points) {
  offsets[0] = ptx::int4_offset<kFloat16>(zero_points[ptx::lane() / 4]);
  offsets[1] = ptx::int4_offset<kFloat16>(zero_points[ptx::lane() / 4 + 8]);
}

// The lane's steps `first` .. first + kSteps - 1 of 16 k, of the four of a chunk. `chunk` is where the lane's
// bytes of the chunk begin.
template <WeightFormat kFormat, bool kFloat16, int kSteps>
__device__ __forceinline__ void expand_steps(uint32_t (&a)[kSteps][4], const unsigned char* chunk, int first,
                                             const uint32_t (&offsets)[2]) {
  if constexpr (kFormat == WeightFormat::kInt4) {
    const ptx::Quad codes = *reinterpret_cast<const ptx::Quad*>(chunk);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      ptx::int4_to_fragment<kFloat16>(codes.word[first + i], offsets, a[i]);
    }
  } else {
    (void)offsets;
#pragma unroll
    for (int i = 0; i < kSteps; i += 2) {
      const ptx::Quad codes = *reinterpret_cast<const ptx::Quad*>(chunk + (first + i) / 2 * kLoadBytes);
      ptx::int8_to_fragment<kFloat16>(codes.word[0], codes.word[1], a[i]);
      ptx::int8_to_fragment<kFloat16>(codes.word[2], codes.word[3], a[i + 1]);
    }
  }
}

}  // namespace fdq::cuda
