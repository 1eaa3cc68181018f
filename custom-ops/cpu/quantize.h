// The parts of the weight quantizers that are written once per instruction set. All give the same bytes.
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

struct QuantizeKernels {
  // Largest |value| of a run as float32 bits, so that NaN > Inf > every finite value.
  uint32_t (*max_magnitude)(const void* source, ElementType element, int64_t count);
  // codes[i] = round(source[i] / scale), one byte each, also for int4. Writes exactly `count` bytes.
  void (*encode)(const void* source, ElementType element, int64_t count, WeightFormat format, float scale,
                 uint8_t* codes);
};

QuantizeKernels quantize_kernels_scalar();
QuantizeKernels quantize_kernels_avx2();
QuantizeKernels quantize_kernels_avx512();

inline int64_t element_bytes(ElementType element) { return element == ElementType::kFloat32 ? 4 : 2; }

// Largest code of a symmetric format; the scale is the largest magnitude divided by it.
inline float largest_code(WeightFormat format) {
  return format == WeightFormat::kInt8 ? 127.0f : format == WeightFormat::kInt4 ? 7.0f : 448.0f;
}

}  // namespace fdq
