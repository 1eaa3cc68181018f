#include <immintrin.h>

#include "cpu/quantize.h"
#include "cpu/quantize_thresholds.h"

namespace fdq {
namespace {

constexpr int64_t kLanes = 16;
constexpr int kSearchLanes = 4;

struct Values {
  __m256 low, high;
};

template <ElementType T>
Values load_values(const uint8_t* p) {
  const auto* vectors = reinterpret_cast<const __m256i*>(p);
  const __m256i first = _mm256_loadu_si256(vectors);
  if constexpr (T == ElementType::kFloat32) {
    return {_mm256_castsi256_ps(first), _mm256_castsi256_ps(_mm256_loadu_si256(vectors + 1))};
  } else {
    const __m128i low = _mm256_castsi256_si128(first), high = _mm256_extracti128_si256(first, 1);
    if constexpr (T == ElementType::kFloat16) return {_mm256_cvtph_ps(low), _mm256_cvtph_ps(high)};
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(low), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(high), 16))};
  }
}

__m256i magnitude_mask() { return _mm256_set1_epi32(0x7fffffff); }

class MaxMagnitude {
 public:
  void add(Values v) {
    best_ = _mm256_max_epu32(best_, _mm256_and_si256(_mm256_castps_si256(v.low), magnitude_mask()));
    best_ = _mm256_max_epu32(best_, _mm256_and_si256(_mm256_castps_si256(v.high), magnitude_mask()));
  }
  uint32_t bits() const {
    alignas(32) uint32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), best_);
    uint32_t best = 0;
    for (uint32_t lane : lanes) best = lane > best ? lane : best;
    return best;
  }

 private:
  __m256i best_ = _mm256_setzero_si256();
};

__m256i round_int(__m256 quotient, int lowest, int highest) {
  const __m256i rounded = _mm256_cvtps_epi32(quotient);
  return _mm256_max_epi32(_mm256_min_epi32(rounded, _mm256_set1_epi32(highest)), _mm256_set1_epi32(lowest));
}

// number_formats.h has the same steps with their reasons.
__m256i round_e4m3(__m256 quotient) {
  const __m256i bits = _mm256_castps_si256(quotient);
  const __m256i magnitude = _mm256_and_si256(bits, magnitude_mask());
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, 20), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(magnitude, _mm256_set1_epi32(0x7ffff)), odd);
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(sum, 20), _mm256_set1_epi32(120 << 3));
  const __m256 magic = _mm256_set1_ps(16384.0f);
  const __m256i shifted = _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(magnitude), magic));
  const __m256i subnormal = _mm256_sub_epi32(shifted, _mm256_castps_si256(magic));
  const __m256i is_normal = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32((121 << 23) - 1));
  const __m256i code =
      _mm256_min_epi32(_mm256_blendv_epi8(subnormal, normal, is_normal), _mm256_set1_epi32(0x7e));
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80));
  return _mm256_or_si256(code, sign);
}

template <WeightFormat F>
__m256i count_thresholds(__m256 quotient) {
  const __m256i bits = _mm256_castps_si256(quotient);
  constexpr bool kSigned = F == WeightFormat::kE2M1;
  const __m256 value = kSigned ? _mm256_castsi256_ps(_mm256_and_si256(bits, magnitude_mask())) : quotient;
  __m256i code = _mm256_setzero_si256();
  for (int i = 0; i < num_thresholds<F>(); ++i) {
    const __m256 above = _mm256_cmp_ps(value, _mm256_set1_ps(thresholds<F>()[i]), _CMP_GT_OQ);
    code = _mm256_sub_epi32(code, _mm256_castps_si256(above));
  }
  if constexpr (!kSigned) return code;
  return _mm256_or_si256(code, _mm256_and_si256(_mm256_srli_epi32(bits, 28), _mm256_set1_epi32(8)));
}

template <WeightFormat F, int Lowest>
class Encoder {
 public:
  explicit Encoder(float scale) : scale_(_mm256_set1_ps(scale)) {}
  void encode(Values v, uint8_t* codes) const {
    const __m256i low = round(_mm256_div_ps(v.low, scale_)), high = round(_mm256_div_ps(v.high, scale_));
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), _MM_SHUFFLE(3, 1, 2, 0));
    const __m128i first = _mm256_castsi256_si128(words), second = _mm256_extracti128_si256(words, 1);
    const __m128i bytes =
        F == WeightFormat::kE4M3 ? _mm_packus_epi16(first, second) : _mm_packs_epi16(first, second);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
  }

 private:
  static __m256i round(__m256 quotient) {
    if constexpr (F == WeightFormat::kE4M3) return round_e4m3(quotient);
    if constexpr (is_compared(F)) return count_thresholds<F>(quotient);
    return round_int(quotient, Lowest, static_cast<int>(largest_code(F)));
  }
  __m256 scale_;
};

}  // namespace
}  // namespace fdq

// The loops are written over the policy above.
#include "cpu/quantize_kernel.h"
#include "cpu/quantize_search.h"

namespace fdq {

QuantizeKernels quantize_kernels_avx2() { return {max_magnitude, encode, encode_to_minus_8, search}; }

}  // namespace fdq
