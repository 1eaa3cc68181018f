// Vec for AVX2 + FMA: two registers of 8 lanes.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/vector_math.h"

namespace fdq {
namespace {

struct Vec {
  __m256 low, high;

  static constexpr int kRegisterRows = 4;  // query rows that share one pass over keys and values
  // Columns of 16 accumulated at once for `rows` rows: at most 8 of the 16 registers, enough to hide the
  // latency of a multiply-add.
  static constexpr int tile_columns(int rows) { return rows >= 3 ? 1 : rows == 2 ? 2 : 4; }

  static __m256i iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
  static __m256i lanes_below(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), iota()); }
  static __m256 widen(__m128i half) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  // bfloat16 bits in 32-bit lanes: round to nearest even, NaN stays NaN (quiet).
  static __m256i narrow(__m256 value) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i top = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }

  static Vec set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static Vec load(const uint16_t* p) {
    return {widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
            widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
  }
  // Lanes from n on are 0 and their memory is not touched.
  static Vec load_first(const float* p, int n) {
    return {_mm256_maskload_ps(p, lanes_below(n)), _mm256_maskload_ps(p + 8, lanes_below(n - 8))};
  }
  static Vec load_first(const uint16_t* p, int n) {
    uint16_t full[16] = {};
    std::memcpy(full, p, static_cast<size_t>(n) * sizeof(uint16_t));
    return load(full);
  }
  static void store(float* p, Vec a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }
  static void store(uint16_t* p, Vec a) {
    const __m256i packed = _mm256_packus_epi32(narrow(a.low), narrow(a.high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  static void store_first(float* p, Vec a, int n) {
    _mm256_maskstore_ps(p, lanes_below(n), a.low);
    _mm256_maskstore_ps(p + 8, lanes_below(n - 8), a.high);
  }
  static void store_first(uint16_t* p, Vec a, int n) {
    uint16_t full[16];
    store(full, a);
    std::memcpy(p, full, static_cast<size_t>(n) * sizeof(uint16_t));
  }
  static void store_int(int32_t* p, Vec a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(a.low));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm256_cvttps_epi32(a.high));
  }

  static Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static Vec sub(Vec a, Vec b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
  static Vec mul(Vec a, Vec b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static Vec div(Vec a, Vec b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
  static Vec fma(Vec a, Vec b, Vec c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  // b where either is NaN.
  static Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
  static Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
  static __m256 round8(__m256 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Vec round(Vec a) { return {round8(a.low), round8(a.high)}; }

  // 2^n for integers n that are exponents of normal numbers.
  static __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  // In two factors, since 2^n itself may be out of range; only the second product can round.
  static __m256 scale8(__m256 a, __m256 n) {
    const __m256i whole = _mm256_cvtps_epi32(n);
    const __m256i first = _mm256_srai_epi32(whole, 1);
    const __m256i second = _mm256_sub_epi32(whole, first);
    return _mm256_mul_ps(_mm256_mul_ps(a, power_of_two(first)), power_of_two(second));
  }
  // a * 2^n, rounded once; |n| <= 152.
  static Vec scale_by_power_of_two(Vec a, Vec n) { return {scale8(a.low, n.low), scale8(a.high, n.high)}; }

  // Lanes outside [from, to) become `other`.
  static __m256 keep8(__m256 a, int from, int to, float other) {
    const __m256i inside = _mm256_andnot_si256(lanes_below(from), lanes_below(to));
    return _mm256_blendv_ps(_mm256_set1_ps(other), a, _mm256_castsi256_ps(inside));
  }
  static Vec keep(Vec a, int from, int to, float other) {
    return {keep8(a.low, from, to, other), keep8(a.high, from - 8, to - 8, other)};
  }
  static __m256 expand(uint32_t mask) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i bits = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(mask)), bit);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(bits, bit));
  }
  static Vec select(uint32_t mask, Vec a, Vec b) {
    return {_mm256_blendv_ps(b.low, a.low, expand(mask)),
            _mm256_blendv_ps(b.high, a.high, expand(mask >> 8))};
  }
  static uint32_t join(__m256 low, __m256 high) {
    return static_cast<uint32_t>(_mm256_movemask_ps(low)) |
           (static_cast<uint32_t>(_mm256_movemask_ps(high)) << 8);
  }
  static uint32_t greater(Vec a, Vec b) {
    return join(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ));
  }
  static uint32_t equal(Vec a, Vec b) {
    return join(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ));
  }
  static uint32_t is_nan(Vec a) {
    return join(_mm256_cmp_ps(a.low, a.low, _CMP_UNORD_Q), _mm256_cmp_ps(a.high, a.high, _CMP_UNORD_Q));
  }

  // Halves folded onto each other.
  static float sum(Vec a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float highest(Vec a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
};

}  // namespace
}  // namespace fdq
