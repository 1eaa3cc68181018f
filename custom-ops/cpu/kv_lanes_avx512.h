// Keys and values of a KV pool as Vec, for AVX-512.
#pragma once

#include "cpu/kv_codes.h"
#include "cpu/vector_math_avx512.h"

namespace fdq {
namespace {

inline QuantizeKernels kv_quantizers() { return quantize_kernels_avx512(); }

inline __m128i load_sixteen(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// Values of the low nibbles.
inline Vec nibble_values(__m512i lanes) {
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return {_mm512_permutexvar_ps(lanes, values)};
}

// Entry d of 16 positions.
inline Vec load_keys(const Int8Code* block, int64_t d) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_sixteen(block + d * kKvBlockSize)))};
}
inline Vec load_keys(const Fp8Code* block, int64_t d) {
  const __m256i wide = _mm256_cvtepi8_epi16(load_sixteen(block + d * kKvBlockSize));
  const __m256i sign_and_rest = _mm256_set1_epi16(static_cast<int16_t>(0xbfff));
  return {_mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), sign_and_rest))};
}
inline Vec load_keys(const Int4Codes* block, int64_t d) {
  const __m512i both = _mm512_cvtepu8_epi32(load_sixteen(block + d / 2 * kKvBlockSize));
  return nibble_values(_mm512_srl_epi32(both, _mm_cvtsi32_si128(4 * static_cast<int>(d % 2))));
}

// 16 entries of one position, from the element that holds the first on.
inline Vec load_values(const Int8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Fp8Code* row) { return load_keys(row, 0); }
inline Vec load_values(const Int4Codes* row) {
  const __m128i twice = _mm_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row)));
  const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4);
  return nibble_values(_mm512_srlv_epi32(_mm512_cvtepu8_epi32(twice), shifts));
}

}  // namespace
}  // namespace fdq
