// Many divisions by one positive number.
#pragma once

#include "cuda/ptx/convert.cuh"

namespace fdq::cuda {

// x / divisor, rounded to nearest, for quotients that are then rounded to 8 bits: right to the last bit where
// the quotient is between 2^-20 and 2^20; others are on the same side of 2^-19 and of 2^19.
//
// A product with the rounded reciprocal and one step of correction with fused multiply-adds is the rounded
// quotient (P. Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990),
// unless all bits of the divisor's fraction are set, or numbers leave the range of normal floats: then it
// divides.
class Divider {
 public:
  __device__ __forceinline__ explicit Divider(float divisor) : divisor_(divisor) {
    constexpr uint32_t kFraction = 0x7fffffu;
    constexpr uint32_t kLowest = (127u - 90u) << 23, kHighest = (127u + 90u) << 23;  // 2^-90 and 2^90
    const uint32_t bits = bit_cast<uint32_t>(divisor);
    is_plain_ = (bits & kFraction) == kFraction || bits < kLowest || bits > kHighest;
    reciprocal_ = ptx::divide(1.0f, divisor);
  }

  __device__ __forceinline__ float operator()(float x) const {
    if (is_plain_) return ptx::divide(x, divisor_);
    const float quotient = x * reciprocal_;
    if (!(fabsf(quotient) < kLargest)) return quotient;
    const float rest = ptx::fused_multiply_add(-quotient, divisor_, x);
    const uint32_t corrected = bit_cast<uint32_t>(ptx::fused_multiply_add(rest, reciprocal_, quotient));
    return bit_cast<float>((corrected & ~kSign) | (bit_cast<uint32_t>(x) & kSign));  // also of a zero
  }

 private:
  static constexpr float kLargest = 1048576.0f;
  static constexpr uint32_t kSign = 0x80000000u;
  float divisor_, reciprocal_;
  bool is_plain_;
};

}  // namespace fdq::cuda
