// Activations to Element, as loops that the compiler vectorizes for the instruction set of the unit that
// includes this. Include after a policy that has Element.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/linear.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

inline void set_element(float value, float* out) { *out = value; }
inline void set_element(float value, uint16_t* out) { *out = float_to_bfloat16(value); }
inline void set_rounded(float value, float* out) { *out = bfloat16_to_float(float_to_bfloat16(value)); }
inline void set_rounded(float value, uint16_t* out) { *out = float_to_bfloat16(value); }

void round_x(const float* x, int64_t count, bool to_bfloat16, void* out) {
  auto* elements = static_cast<Element*>(out);
  if (!to_bfloat16 && std::is_same<Element, float>::value) {
    std::memcpy(out, x, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) set_rounded(x[i], elements + i);
}

// e4m3_to_float without branches, so that it vectorizes. A subnormal code becomes 2^-6 (1 + fraction) less
// 2^-6.
inline float decode_e4m3(uint8_t code) {
  const int32_t magnitude = code & 0x7f;
  const int32_t subnormal = magnitude < 8;
  const uint32_t bits = static_cast<uint32_t>((magnitude << 20) + ((120 + subnormal) << 23));
  const float finite = bits_float(bits) - static_cast<float>(subnormal) * 0.015625f;
  const uint32_t nan = static_cast<uint32_t>(-static_cast<int32_t>(magnitude == 0x7f)) & 0x7fc00000u;
  return bits_float(float_bits(finite) | nan | static_cast<uint32_t>(code & 0x80) << 24);
}

void decode_e4m3_x(const uint8_t* codes, int64_t count, float factor, void* out) {
  auto* elements = static_cast<Element*>(out);
  for (int64_t i = 0; i < count; ++i) set_element(decode_e4m3(codes[i]) * factor, elements + i);
}

void decode_int8_x(const uint8_t* codes, int64_t count, float factor, void* out) {
  auto* elements = static_cast<Element*>(out);
  for (int64_t i = 0; i < count; ++i) {
    set_element(static_cast<float>(static_cast<int8_t>(codes[i])) * factor, elements + i);
  }
}

constexpr ConvertX kConvertX{round_x, decode_e4m3_x, decode_int8_x};

}  // namespace
}  // namespace fdq
