// Codes that are found by comparison: a code is the number of thresholds that the quotient (its magnitude,
// for e2m1) exceeds.
#pragma once

#include "cpu/number_formats.h"

namespace fdq {
namespace {

// A tie between two e2m1 values goes to the even code: the float32 before a midpoint is the threshold where
// that is the upper one.
constexpr float kE2M1Thresholds[] = {0.25f, 0x1.7ffffep-1f, 1.25f, 0x1.bffffep+0f,
                                     2.5f,  0x1.bffffep+1f, 5.0f};
// Levels -3, -1, 1, 3; a tie goes up, and so does a zero of either sign.
constexpr float kInt2Thresholds[] = {-0x1.000002p+1f, -0x1p-149f, 0x1.fffffep+0f};

// A midpoint goes to the lower value, as in bitsandbytes.
struct NF4Thresholds {
  float at[15];

  constexpr NF4Thresholds() : at() {
    for (int i = 0; i < 15; ++i) at[i] = (kNF4Values[i] + kNF4Values[i + 1]) / 2;
  }
};
constexpr NF4Thresholds kNF4Thresholds;

constexpr bool is_compared(WeightFormat format) {
  return format == WeightFormat::kNF4 || format == WeightFormat::kE2M1 || format == WeightFormat::kInt2;
}

template <WeightFormat F>
constexpr const float* thresholds() {
  if constexpr (F == WeightFormat::kNF4) return kNF4Thresholds.at;
  return F == WeightFormat::kE2M1 ? kE2M1Thresholds : kInt2Thresholds;
}

template <WeightFormat F>
constexpr int num_thresholds() {
  return F == WeightFormat::kNF4 ? 15 : F == WeightFormat::kE2M1 ? 7 : 3;
}

}  // namespace
}  // namespace fdq
