// Rows of float32, float16 or bfloat16, eight values at a time.
#pragma once

#include <type_traits>

#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"

namespace fdq::cuda {

// Bits of a stored value.
template <ElementType T>
using Stored = std::conditional_t<T == ElementType::kFloat32, uint32_t, uint16_t>;

constexpr int kPerLane = 8;  // 16 bytes, 32 of float32

// kPerLane values as stored.
template <ElementType T>
struct Values {
  static constexpr int kQuads = kPerLane * static_cast<int>(sizeof(Stored<T>)) / 16;
  ptx::Quad quad[kQuads];

  __device__ __forceinline__ uint32_t bits(int i) const {
    if (T == ElementType::kFloat32) return quad[i / 4].word[i % 4];
    return quad[0].word[i / 2] >> (i % 2 * 16) & 0xffffu;
  }
  __device__ __forceinline__ float operator[](int i) const {
    if (T == ElementType::kFloat32) return bit_cast<float>(bits(i));
    const uint32_t pair = quad[0].word[i / 2];
    if (T == ElementType::kBFloat16) {
      return i % 2 == 0 ? ptx::first_bfloat16(pair) : ptx::second_bfloat16(pair);
    }
    return i % 2 == 0 ? ptx::first_float16(pair) : ptx::second_float16(pair);
  }
};

// k .. k + 7 of a row, 0 beyond its end. `Whole`: rows are 16-byte aligned.
template <ElementType T, bool Whole>
__device__ __forceinline__ Values<T> load_values(const Stored<T>* row, int64_t k, int64_t end) {
  Values<T> values{};
  if (Whole && k + kPerLane <= end) {
#pragma unroll
    for (int i = 0; i < Values<T>::kQuads; ++i) {
      values.quad[i] = ptx::load_quad(row + k + i * (kPerLane / Values<T>::kQuads));
    }
    return values;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const uint32_t bits = k + i < end ? row[k + i] : 0;
    if (T == ElementType::kFloat32) {
      values.quad[i / 4].word[i % 4] = bits;
    } else {
      values.quad[0].word[i / 2] |= bits << (i % 2 * 16);
    }
  }
  return values;
}

}  // namespace fdq::cuda
