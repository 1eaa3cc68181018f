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
// divides. The sign is that of x also where the quotient is 0.
class Divider {
 public:
  __device__ __forceinline__ explicit Divider(float divisor) : divisor_(divisor) {
    constexpr uint32_t kFraction = 0x7fffffu;
    constexpr uint32_t kLowest = (127u - 90u) << 23, kHighest = (127u + 90u) << 23;  // 2^-90 and 2^90
    const uint32_t bits = bit_cast<uint32_t>(divisor);
    is_plain_ = (bits & kFraction) == kFraction || bits < kLowest || bits > kHighest;
    reciprocal_ = ptx::reciprocal(divisor);
  }

  // Replaces each x by its quotient. kBounded: the caller knows that all are below 2^20. The test is the same
  // for all of them and stands before them: one at each would cost more than the division.
  template <bool kBounded, int kCount>
  __device__ __forceinline__ void divide_all(float (&x)[kCount]) const {
    if (is_plain_) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = ptx::divide(x[i], divisor_);
      return;
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float quotient = x[i] * reciprocal_;
      const float rest = ptx::fused_multiply_add(-quotient, divisor_, x[i]);
      const float corrected = copysignf(ptx::fused_multiply_add(rest, reciprocal_, quotient), x[i]);
      x[i] = kBounded || fabsf(quotient) < kLargest ? corrected : quotient;
    }
  }

 private:
  static constexpr float kLargest = 1048576.0f;
  float divisor_, reciprocal_;
  bool is_plain_;
};

}  // namespace fdq::cuda
