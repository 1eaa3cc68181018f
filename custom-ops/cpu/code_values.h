// What codes stand for without their scales. In an anonymous namespace for the reason given in number_formats.h.
#pragma once

#include "cpu/number_formats.h"

namespace fdq {
namespace {

// `code` in its low bits.
inline float code_to_float(WeightFormat format, uint8_t code) {
  switch (format) {
    case WeightFormat::kInt8:
      return static_cast<int8_t>(code);
    case WeightFormat::kInt4:
      return static_cast<float>(nibble_to_int(code));
    case WeightFormat::kInt2:
      return int2_to_float(code);
    case WeightFormat::kNF4:
      return kNF4Values[code];
    case WeightFormat::kE2M1:
      return e2m1_to_float(code);
    default:
      return e4m3_to_float(code);
  }
}

}  // namespace
}  // namespace fdq
