#include "cpu/quantize.h"
#include "cpu/quantize_thresholds.h"
#include "cpu/wide_intrinsics.h"

namespace fdq {
namespace {

constexpr int64_t kLanes = 16;
constexpr int kSearchLanes = 8;

template <ElementType T>
__m512 load_values(const uint8_t* p) {
  if constexpr (T == ElementType::kFloat32) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
  } else {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (T == ElementType::kFloat16) return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
}

__m512i magnitude_mask() { return _mm512_set1_epi32(0x7fffffff); }

class MaxMagnitude {
 public:
  void add(__m512 v) {
    best_ = _mm512_max_epu32(best_, _mm512_and_si512(_mm512_castps_si512(v), magnitude_mask()));
  }
  uint32_t bits() const { return _mm512_reduce_max_epu32(best_); }

 private:
  __m512i best_ = _mm512_setzero_si512();
};

__m512i round_int(__m512 quotient, int lowest, int highest) {
  const __m512i rounded = _mm512_cvtps_epi32(quotient);
  return _mm512_max_epi32(_mm512_min_epi32(rounded, _mm512_set1_epi32(highest)), _mm512_set1_epi32(lowest));
}

// number_formats.h has the same steps with their reasons.
__m512i round_e4m3(__m512 quotient) {
  const __m512i bits = _mm512_castps_si512(quotient);
  const __m512i magnitude = _mm512_and_si512(bits, magnitude_mask());
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(magnitude, 20), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(magnitude, _mm512_set1_epi32(0x7ffff)), odd);
  const __m512i normal = _mm512_sub_epi32(_mm512_srli_epi32(sum, 20), _mm512_set1_epi32(120 << 3));
  const __m512 magic = _mm512_set1_ps(16384.0f);
  const __m512i shifted = _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(magnitude), magic));
  const __m512i subnormal = _mm512_sub_epi32(shifted, _mm512_castps_si512(magic));
  const __mmask16 is_normal = _mm512_cmpge_epu32_mask(magnitude, _mm512_set1_epi32(121 << 23));
  const __m512i code =
      _mm512_min_epi32(_mm512_mask_mov_epi32(subnormal, is_normal, normal), _mm512_set1_epi32(0x7e));
  const __m512i sign = _mm512_and_si512(_mm512_srli_epi32(bits, 24), _mm512_set1_epi32(0x80));
  return _mm512_or_si512(code, sign);
}

template <WeightFormat F>
__m512i count_thresholds(__m512 quotient) {
  const __m512i bits = _mm512_castps_si512(quotient);
  constexpr bool kSigned = F == WeightFormat::kE2M1;
  const __m512 value = kSigned ? _mm512_castsi512_ps(_mm512_and_si512(bits, magnitude_mask())) : quotient;
  __m512i code = _mm512_setzero_si512();
  for (int i = 0; i < num_thresholds<F>(); ++i) {
    const __mmask16 above = _mm512_cmp_ps_mask(value, _mm512_set1_ps(thresholds<F>()[i]), _CMP_GT_OQ);
    code = _mm512_mask_add_epi32(code, above, code, _mm512_set1_epi32(1));
  }
  if constexpr (!kSigned) return code;
  return _mm512_or_si512(code, _mm512_and_si512(_mm512_srli_epi32(bits, 28), _mm512_set1_epi32(8)));
}

template <WeightFormat F, int Lowest>
class Encoder {
 public:
  explicit Encoder(float scale) : scale_(_mm512_set1_ps(scale)) {}
  void encode(__m512 v, uint8_t* codes) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes),
                     _mm512_cvtepi32_epi8(round(_mm512_div_ps(v, scale_))));
  }

 private:
  static __m512i round(__m512 quotient) {
    if constexpr (F == WeightFormat::kE4M3) return round_e4m3(quotient);
    if constexpr (is_compared(F)) return count_thresholds<F>(quotient);
    return round_int(quotient, Lowest, static_cast<int>(largest_code(F)));
  }
  __m512 scale_;
};

}  // namespace
}  // namespace fdq

// The loops are written over the policy above.
#include "cpu/quantize_kernel.h"
#include "cpu/quantize_search.h"

namespace fdq {

QuantizeKernels quantize_kernels_avx512() { return {max_magnitude, encode, encode_to_minus_8, search}; }

}  // namespace fdq
