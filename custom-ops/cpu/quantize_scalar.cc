#include <cmath>

#include "cpu/number_formats.h"
#include "cpu/quantize.h"
#include "cpu/quantize_thresholds.h"

namespace fdq {
namespace {

constexpr int64_t kLanes = 1;
constexpr int kSearchLanes = 1;

template <ElementType T>
float load_values(const uint8_t* p) {
  if constexpr (T == ElementType::kFloat32) {
    float value;
    std::memcpy(&value, p, sizeof value);
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, p, sizeof bits);
    return T == ElementType::kFloat16 ? float16_to_float(bits) : bfloat16_to_float(bits);
  }
}

class MaxMagnitude {
 public:
  void add(float value) {
    const uint32_t magnitude = float_bits(value) & 0x7fffffffu;
    best_ = magnitude > best_ ? magnitude : best_;
  }
  uint32_t bits() const { return best_; }

 private:
  uint32_t best_ = 0;
};

template <WeightFormat F>
uint8_t count_thresholds(float quotient) {
  const bool is_negative = F == WeightFormat::kE2M1 && (float_bits(quotient) >> 31) != 0;
  const float value = is_negative ? -quotient : quotient;
  int code = is_negative ? 8 : 0;
  for (int i = 0; i < num_thresholds<F>(); ++i) code += value > thresholds<F>()[i] ? 1 : 0;
  return static_cast<uint8_t>(code);
}

template <WeightFormat F, int Lowest>
class Encoder {
 public:
  explicit Encoder(float scale) : scale_(scale) {}
  void encode(float value, uint8_t* code) const {
    const float quotient = value / scale_;
    if constexpr (F == WeightFormat::kE4M3) {
      *code = float_to_e4m3(quotient);
    } else if constexpr (is_compared(F)) {
      *code = count_thresholds<F>(quotient);
    } else {
      constexpr float kLowest = Lowest, kHighest = largest_code(F);
      const float rounded = std::nearbyint(quotient);
      const float limited = rounded > kHighest ? kHighest : rounded < kLowest ? kLowest : rounded;
      *code = static_cast<uint8_t>(static_cast<int8_t>(limited));
    }
  }

 private:
  float scale_;
};

}  // namespace
}  // namespace fdq

// The loops are written over the policy above.
#include "cpu/quantize_kernel.h"
#include "cpu/quantize_search.h"

namespace fdq {

QuantizeKernels quantize_kernels_scalar() { return {max_magnitude, encode, encode_to_minus_8, search}; }

}  // namespace fdq
