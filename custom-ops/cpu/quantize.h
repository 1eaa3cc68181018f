// The parts of the weight quantizers that are written once per instruction set. All give the same bytes.
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

struct QuantizeKernels {
  // Largest |value| of a run as float32 bits, so that NaN > Inf > every finite value.
  uint32_t (*max_magnitude)(const void* source, ElementType element, int64_t count);
  // codes[i] = round(source[i] / scale), one byte each, also for narrower codes. Writes exactly `count`
  // bytes.
  void (*encode)(const void* source, ElementType element, int64_t count, WeightFormat format, float scale,
                 uint8_t* codes);
  // The same to int4, from -8 instead of -7 on: for scales that were searched.
  void (*encode_to_minus_8)(const void* source, ElementType element, int64_t count, float scale,
                            uint8_t* codes);
  // The scales of 16 groups (int4 or int2), one a row: values [columns][16], scales [16]; int4's are of
  // either sign. See quantize_search.h.
  void (*search)(WeightFormat format, const float* values, int64_t columns, float* scales);
};

QuantizeKernels quantize_kernels_scalar();
QuantizeKernels quantize_kernels_avx2();
QuantizeKernels quantize_kernels_avx512();
QuantizeKernels quantize_kernels(Isa isa);

inline int64_t element_bytes(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

// Largest code of a symmetric format; the scale is the largest magnitude divided by it, unless searched.
constexpr float largest_code(WeightFormat format) {
  switch (format) {
    case WeightFormat::kInt8:
      return 127.0f;
    case WeightFormat::kInt4:
      return 7.0f;
    case WeightFormat::kInt2:
      return 3.0f;
    case WeightFormat::kNF4:
      return 1.0f;
    case WeightFormat::kE2M1:
      return 6.0f;
    default:
      return 448.0f;
  }
}

// Where integer formats are clamped below unless scales are searched.
constexpr int lowest_code(WeightFormat format) { return -static_cast<int>(largest_code(format)); }

// Scales are `largest` / largest_code, and 1 where that is 0.
float scale_of(float largest, WeightFormat format);

}  // namespace fdq
