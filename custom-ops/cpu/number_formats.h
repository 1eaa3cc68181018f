// Scalar conversions between number formats. Everything here is in an anonymous namespace: translation units
// built for different instruction sets must not share a function body.
#pragma once

#include <cstdint>
#include <cstring>

#include "fdq/formats.h"

namespace fdq {
namespace {

inline uint32_t float_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float bits_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float bfloat16_to_float(uint16_t bits) { return bits_float(static_cast<uint32_t>(bits) << 16); }

// Nearest, ties to even; a NaN stays a (quiet) NaN.
inline uint16_t float_to_bfloat16(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float float16_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return bits_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  if (magnitude >= 0x400u) return bits_float(sign | ((magnitude << 13) + (112u << 23)));
  constexpr float kSubnormalUnit = 5.9604644775390625e-8f;  // 2^-24
  return bits_float(sign | float_bits(static_cast<float>(magnitude) * kSubnormalUnit));
}

inline float e4m3_to_float(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7f) return bits_float(sign | 0x7fc00000u);
  if (magnitude >= 8) return bits_float(sign | ((magnitude << 20) + (120u << 23)));
  constexpr float kSubnormalUnit = 0.001953125f;  // 2^-9
  return bits_float(sign | float_bits(static_cast<float>(magnitude) * kSubnormalUnit));
}

// Nearest, ties to the even code, saturating to +-448; NaN gives 0x7f with its sign.
inline uint8_t float_to_e4m3(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t sign = bits >> 24 & 0x80u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  uint32_t code;
  if (magnitude >= 121u << 23) {  // 2^-6 and above: keep three bits of the fraction
    code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  } else {  // the unit in the last place of 2^14 is 2^-9, that of subnormal codes
    constexpr float kMagic = 16384.0f;
    code = float_bits(bits_float(magnitude) + kMagic) - float_bits(kMagic);
  }
  return static_cast<uint8_t>(sign | (code > 0x7eu ? 0x7eu : code));
}

// A power of two; 255 is NaN. 2^-127 is a subnormal float32.
inline float e8m0_to_float(uint8_t code) {
  if (code == 0) return bits_float(1u << 22);
  return bits_float(code == 255 ? 0x7fc00000u : static_cast<uint32_t>(code) << 23);
}

// Magnitudes of e2m1; bit 3 of a code is the sign.
constexpr float kE2M1Values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};

// The codebook of QLoRA (arXiv:2305.14314, appendix E).
constexpr float kNF4Values[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};

inline float e2m1_to_float(unsigned code) {
  return (code & 8u) != 0 ? -kE2M1Values[code & 7u] : kE2M1Values[code & 7u];
}
inline float int2_to_float(unsigned code) { return 2.0f * static_cast<float>(code & 3u) - 3.0f; }

// One narrow scale of `type`, bfloat16 little-endian.
inline float block_scale_to_float(BlockScaleType type, const uint8_t* scale) {
  if (type == BlockScaleType::kE4M3) return e4m3_to_float(*scale);
  if (type == BlockScaleType::kE8M0) return e8m0_to_float(*scale);
  return bfloat16_to_float(static_cast<uint16_t>(scale[0] | scale[1] << 8));
}

// Two's complement of four bits.
inline int nibble_to_int(unsigned nibble) { return static_cast<int>((nibble & 15u) ^ 8u) - 8; }

// The lowest bits of `code` with the block scale of their block, or in int4 the zero point of their group,
// applied.
template <WeightFormat F>
float scaled_value(unsigned code, float factor) {
  if constexpr (F == WeightFormat::kInt4) return static_cast<float>(nibble_to_int(code)) - factor;
  if constexpr (F == WeightFormat::kInt2) return int2_to_float(code) * factor;
  return e2m1_to_float(code) * factor;
}

// Values of four bits of which the lowest are a code.
template <WeightFormat F>
struct ScaledTable {
  float values[16];

  ScaledTable() {
    for (unsigned i = 0; i < 16; ++i) {
      values[i] = F == WeightFormat::kInt4 ? scaled_value<F>(i, 0.0f) : scaled_value<F>(i, 1.0f);
    }
  }
};

}  // namespace
}  // namespace fdq
