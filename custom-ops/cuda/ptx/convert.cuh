// Conversions between number formats, each one instruction where the device has it.
#pragma once

#include <cmath>

#include "cuda/device.cuh"

#ifdef FDQ_CUDA_EMULATE
#include "cpu/number_formats.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fdq::ptx {

__device__ __forceinline__ float from_bfloat16(uint32_t bits) { return cuda::bit_cast<float>(bits << 16); }
// Of a pair: the lower half is the first.
__device__ __forceinline__ float first_bfloat16(uint32_t pair) { return cuda::bit_cast<float>(pair << 16); }
__device__ __forceinline__ float second_bfloat16(uint32_t pair) {
  return cuda::bit_cast<float>(pair & 0xffff0000u);
}

__device__ __forceinline__ float from_float16(uint16_t bits) {
#ifdef FDQ_CUDA_EMULATE
  return float16_to_float(bits);
#else
  return __half2float(__ushort_as_half(bits));
#endif
}
__device__ __forceinline__ float first_float16(uint32_t pair) {
  return from_float16(static_cast<uint16_t>(pair & 0xffffu));
}
__device__ __forceinline__ float second_float16(uint32_t pair) {
  return from_float16(static_cast<uint16_t>(pair >> 16));
}

// Two floats rounded to nearest, ties to even; the first in the lower half.
__device__ __forceinline__ uint32_t to_bfloat16_pair(float first, float second) {
#ifdef FDQ_CUDA_EMULATE
  return float_to_bfloat16(first) | static_cast<uint32_t>(float_to_bfloat16(second)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#endif
}
__device__ __forceinline__ uint32_t to_float16_pair(float first, float second) {
#ifdef FDQ_CUDA_EMULATE
  return emu::float_to_float16(first) | static_cast<uint32_t>(emu::float_to_float16(second)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#endif
}

// To e4m3, nearest, ties to the even code, saturating to +-448; NaN to a NaN.
__device__ __forceinline__ uint32_t to_e4m3_pair(float first, float second) {
#ifdef FDQ_CUDA_EMULATE
  return float_to_e4m3(first) | static_cast<uint32_t>(float_to_e4m3(second)) << 8;
#elif __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second), "f"(first));
  return pair;
#else
  const auto one = [](float value) -> uint32_t {
    const uint32_t bits = cuda::bit_cast<uint32_t>(value);
    const uint32_t sign = bits >> 24 & 0x80u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fu;
    uint32_t code;
    if (magnitude >= 121u << 23) {  // 2^-6 and above: keep three bits of the fraction
      code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
    } else {  // the unit in the last place of 2^14 is 2^-9, that of subnormal codes
      constexpr float kMagic = 16384.0f;
      code = cuda::bit_cast<uint32_t>(__fadd_rn(cuda::bit_cast<float>(magnitude), kMagic)) -
             cuda::bit_cast<uint32_t>(kMagic);
    }
    return sign | (code > 0x7eu ? 0x7eu : code);
  };
  return one(first) | one(second) << 8;
#endif
}
// e4m3 to a pair of float16, exact; the lower byte is the first.
__device__ __forceinline__ uint32_t e4m3_to_float16_pair(uint32_t codes) {
#ifdef FDQ_CUDA_EMULATE
  return emu::float_to_float16(e4m3_to_float(static_cast<uint8_t>(codes))) |
         static_cast<uint32_t>(emu::float_to_float16(e4m3_to_float(static_cast<uint8_t>(codes >> 8)))) << 16;
#elif __CUDA_ARCH__ >= 890
  uint32_t pair;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(static_cast<uint16_t>(codes)));
  return pair;
#else
  // Exponent and fraction moved into place are the value divided by 2^8, but for NaN, which is 1.875.
  const uint32_t wide = (codes & 0xffu) << 8 | (codes & 0xff00u) << 16;
  const uint32_t magnitude = (wide & 0x7f007f00u) >> 1;
  const uint32_t scaled = (wide & 0x80008000u) | magnitude;
  const __half2 value = __hmul2(cuda::bit_cast<__half2>(scaled), __float2half2_rn(256.0f));
  const uint32_t is_nan = __hge2_mask(cuda::bit_cast<__half2>(magnitude), __float2half2_rn(1.875f));
  return cuda::bit_cast<uint32_t>(value) | is_nan;
#endif
}
__device__ __forceinline__ uint32_t sub_float16_pair(uint32_t a, uint32_t b) {
#ifdef FDQ_CUDA_EMULATE
  return to_float16_pair(first_float16(a) - first_float16(b), second_float16(a) - second_float16(b));
#else
  return cuda::bit_cast<uint32_t>(__hsub2(cuda::bit_cast<__half2>(a), cuda::bit_cast<__half2>(b)));
#endif
}
// a - b and a * b of pairs of bfloat16, rounded to nearest.
__device__ __forceinline__ uint32_t sub_bfloat16_pair(uint32_t a, uint32_t b) {
#ifdef FDQ_CUDA_EMULATE
  return to_bfloat16_pair(first_bfloat16(a) - first_bfloat16(b), second_bfloat16(a) - second_bfloat16(b));
#else
  return cuda::bit_cast<uint32_t>(
      __hsub2(cuda::bit_cast<__nv_bfloat162>(a), cuda::bit_cast<__nv_bfloat162>(b)));
#endif
}
__device__ __forceinline__ uint32_t mul_bfloat16_pair(uint32_t a, uint32_t b) {
#ifdef FDQ_CUDA_EMULATE
  return to_bfloat16_pair(first_bfloat16(a) * first_bfloat16(b), second_bfloat16(a) * second_bfloat16(b));
#else
  return cuda::bit_cast<uint32_t>(
      __hmul2(cuda::bit_cast<__nv_bfloat162>(a), cuda::bit_cast<__nv_bfloat162>(b)));
#endif
}

// Division rounded to nearest: what the oracle does, whatever -use_fast_math says.
__device__ __forceinline__ float divide(float a, float b) {
#ifdef FDQ_CUDA_EMULATE
  return a / b;
#else
  return __fdiv_rn(a, b);
#endif
}
// 1 / a, likewise.
__device__ __forceinline__ float reciprocal(float a) {
#ifdef FDQ_CUDA_EMULATE
  return 1.0f / a;
#else
  return __frcp_rn(a);
#endif
}
// To the nearest integer, ties to even, kept as float.
__device__ __forceinline__ float round_to_even(float value) {
#ifdef FDQ_CUDA_EMULATE
  return std::nearbyint(value);
#else
  return rintf(value);
#endif
}
__device__ __forceinline__ float fused_multiply_add(float a, float b, float c) {
#ifdef FDQ_CUDA_EMULATE
  return std::fma(a, b, c);
#else
  return __fmaf_rn(a, b, c);
#endif
}

// The larger of each pair of unsigned 16-bit numbers.
__device__ __forceinline__ uint32_t max_pair(uint32_t a, uint32_t b) {
#ifdef FDQ_CUDA_EMULATE
  const uint32_t low = (a & 0xffffu) > (b & 0xffffu) ? a : b, high = a >> 16 > b >> 16 ? a : b;
  return (low & 0xffffu) | (high & 0xffff0000u);
#else
  return __vmaxu2(a, b);
#endif
}

// (a & mask) ^ bits in one instruction.
__device__ __forceinline__ uint32_t and_xor(uint32_t a, uint32_t mask, uint32_t bits) {
#ifdef FDQ_CUDA_EMULATE
  return (a & mask) ^ bits;
#else
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(out) : "r"(a), "r"(mask), "r"(bits));
  return out;
#endif
}

// What int4_to_fragment subtracts from rows with this zero point, in -8 .. 119.
template <bool kFloat16>
__device__ __forceinline__ uint32_t int4_offset(int zero_point) {
  const uint32_t offset = (kFloat16 ? 0x6408u : 0x4308u) + static_cast<uint32_t>(zero_point);
  return offset << 16 | (offset & 0xffffu);
}
// The codes of one step of 16 k of layout kFragments as the A operand of m16n8k16, in float16 or bfloat16:
// one word of int4 codes, or two of int8. Exact. `offsets`: int4_offset of rows g and g + 8.
template <bool kFloat16>
__device__ __forceinline__ void int4_to_fragment(uint32_t word, const uint32_t (&offsets)[2],
                                                 uint32_t (&a)[4]) {
  // 128 + 8 as bfloat16, 1024 + 8 as float16: the codes' sign bit is flipped.
  constexpr uint32_t kRaise = kFloat16 ? 0x64086408u : 0x43084308u;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t raised = and_xor(word >> (4 * i), 0x000f000fu, kRaise);
    a[i] = kFloat16 ? sub_float16_pair(raised, offsets[i % 2]) : sub_bfloat16_pair(raised, offsets[i % 2]);
  }
}
template <bool kFloat16>
__device__ __forceinline__ void int8_to_fragment(uint32_t low, uint32_t high, uint32_t (&a)[4]) {
  const uint32_t words[4] = {low, low >> 8, high, high >> 8};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kFloat16) {  // 1024 + 128 + the code
      a[i] = sub_float16_pair(and_xor(words[i], 0x00ff00ffu, 0x64806480u), 0x64806480u);
    } else {  // 128 + the lower seven bits, less 128 or, where the sign bit is set, 256
      a[i] = sub_bfloat16_pair(and_xor(words[i], 0x007f007fu, 0x43004300u),
                               and_xor(words[i], 0x00800080u, 0x43004300u));
    }
  }
}

}  // namespace fdq::ptx
