// 16 rows of a panel in one AVX-512 register, and sums across lanes.
#pragma once

#include <cstdint>

#include "cpu/wide_intrinsics.h"
#include "fdq/formats.h"

namespace fdq {
namespace {

inline void prefetch(const void* address) { _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T1); }

struct Rows {
  __m512 v;

  static Rows set(float x) { return {_mm512_set1_ps(x)}; }
  static Rows load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static void store(float* p, Rows a) { _mm512_storeu_ps(p, a.v); }
  static Rows add(Rows a, Rows b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Rows mul(Rows a, Rows b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Rows fma(Rows a, Rows b, Rows c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
};

// 16 codes as 32-bit indices.
inline __m512i widen_codes(const uint8_t* codes) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
}

// 16 narrow scales as float32. An e4m3 NaN becomes 480.
inline Rows widen_block_scales(BlockScaleType type, const uint8_t* scales) {
  if (type == BlockScaleType::kBFloat16) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales));
  if (type == BlockScaleType::kE4M3) {
    // Moved into place, e4m3 is a float16 whose exponent is 8 too small.
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7),
                                            _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    return {_mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256.0f))};
  }
  // Exponents in place; 2^-127 is subnormal, and 255 is NaN.
  const __m512i wide = _mm512_cvtepu8_epi32(codes);
  __m512i bits = _mm512_slli_epi32(wide, 23);
  bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(wide, wide), _mm512_set1_epi32(1 << 22));
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(wide, _mm512_set1_epi32(255));
  return {_mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, nan, _mm512_set1_epi32(0x7fc00000)))};
}

// Factors of 16 rows, each twice: [16 rows][2 k].
struct PairFactor {
  __m512 v[2];

  PairFactor(Rows factors, bool /*bounded*/) {
    const __m512 rows = factors.v;
    v[0] = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), rows);
    v[1] = _mm512_permutexvar_ps(
        _mm512_setr_epi32(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15), rows);
  }
};

// The sums of the lanes of four registers, by one tree.
inline void add_lanes_of_four(__m512 a, __m512 b, __m512 c, __m512 d, float* out) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d ab2 = _mm512_castps_pd(ab), cd2 = _mm512_castps_pd(cd);
  const __m512 abcd = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2)),
                                    _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2)));
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(abcd), 1));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), high);
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

}  // namespace
}  // namespace fdq
