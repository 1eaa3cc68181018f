// Scalar conversions between number formats. Everything here is in an anonymous namespace: translation units
// built for different instruction sets must not share a function body.
#pragma once

#include <cstdint>
#include <cstring>

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

// Two's complement of four bits.
inline int nibble_to_int(unsigned nibble) { return static_cast<int>((nibble & 15u) ^ 8u) - 8; }

}  // namespace
}  // namespace fdq
