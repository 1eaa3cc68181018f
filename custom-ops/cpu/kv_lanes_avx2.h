// Keys and values of a KV pool as Vec, for AVX2.
#pragma once

#include "cpu/kv_codes.h"
#include "cpu/vector_math_avx2.h"

namespace fdq {
namespace {

inline QuantizeKernels kv_quantizers() { return quantize_kernels_avx2(); }

inline __m128i load_eight(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }

inline Vec to_floats(__m256i low, __m256i high) {
  return {_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)};
}

// Entry d of 16 positions.
inline Vec load_keys(const Int8Code* block, int64_t d) {
  const Int8Code* p = block + d * kKvBlockSize;
  return to_floats(_mm256_cvtepi8_epi32(load_eight(p)), _mm256_cvtepi8_epi32(load_eight(p + 8)));
}
inline Vec load_keys(const Fp8Code* block, int64_t d) {
  const auto* p = reinterpret_cast<const __m128i*>(block + d * kKvBlockSize);
  const __m256i shifted = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(p)), 7);
  const __m256i halves = _mm256_and_si256(shifted, _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}
inline Vec load_keys(const Int4Codes* block, int64_t d) {
  const Int4Codes* p = block + d / 2 * kKvBlockSize;
  const __m128i up = _mm_cvtsi32_si128(28 - 4 * static_cast<int>(d % 2));
  const __m256i low = _mm256_sll_epi32(_mm256_cvtepu8_epi32(load_eight(p)), up);
  const __m256i high = _mm256_sll_epi32(_mm256_cvtepu8_epi32(load_eight(p + 8)), up);
  return to_floats(_mm256_srai_epi32(low, 28), _mm256_srai_epi32(high, 28));
}

// 16 entries of one position, from the element that holds the first on.
inline Vec load_values(const Int8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Fp8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Int4Codes* row) {
  const __m256i both = _mm256_cvtepi8_epi32(load_eight(row));
  return to_floats(_mm256_srai_epi32(_mm256_slli_epi32(both, 28), 28), _mm256_srai_epi32(both, 4));
}

}  // namespace
}  // namespace fdq
