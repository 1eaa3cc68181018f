// Vec for AVX-512 (F, BW, VL, DQ): one register.
#pragma once

#include <cstdint>

#include "cpu/vector_math.h"
#include "cpu/wide_intrinsics.h"

namespace fdq {
namespace {

struct Vec {
  __m512 v;

  static constexpr int kRegisterRows = 8;  // query rows that share one pass over keys and values
  // Columns of 16 accumulated at once for `rows` rows: at most 16 of the 32 registers; few rows are bound by
  // memory and take long runs of it.
  static constexpr int tile_columns(int rows) { return rows >= 5 ? 2 : 4; }

  static __mmask16 lanes(int from, int to) {
    const int first = from < 0 ? 0 : from > 16 ? 16 : from;
    const int last = to < 0 ? 0 : to > 16 ? 16 : to;
    return static_cast<__mmask16>(((1u << last) - 1) & ~((1u << first) - 1));
  }
  static __m512 widen(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  // Round to nearest even, NaN stays NaN (quiet). Not the bf16 instruction, which flushes denormals.
  static __m256i narrow(__m512 value) {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i top = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __m512i quiet = _mm512_or_si512(top, _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(sum, 16), nan, quiet));
  }

  static Vec set(float x) { return {_mm512_set1_ps(x)}; }
  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const uint16_t* p) {
    return {widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  // Lanes from n on are 0 and their memory is not touched.
  static Vec load_first(const float* p, int n) { return {_mm512_maskz_loadu_ps(lanes(0, n), p)}; }
  static Vec load_first(const uint16_t* p, int n) {
    return {widen(_mm256_maskz_loadu_epi16(lanes(0, n), p))};
  }
  static void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
  static void store(uint16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a.v)); }
  static void store_first(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, lanes(0, n), a.v); }
  static void store_first(uint16_t* p, Vec a, int n) {
    _mm256_mask_storeu_epi16(p, lanes(0, n), narrow(a.v));
  }
  static void store_int(int32_t* p, Vec a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }

  static Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Vec sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Vec mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Vec div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  // b where either is NaN.
  static Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // a * 2^n, rounded once.
  static Vec scale_by_power_of_two(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

  // Lanes outside [from, to) become `other`.
  static Vec keep(Vec a, int from, int to, float other) {
    return {_mm512_mask_mov_ps(_mm512_set1_ps(other), lanes(from, to), a.v)};
  }
  static Vec select(uint32_t mask, Vec a, Vec b) {
    return {_mm512_mask_mov_ps(b.v, static_cast<__mmask16>(mask), a.v)};
  }
  static uint32_t greater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  static uint32_t equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
  static uint32_t is_nan(Vec a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q); }

  // Halves folded onto each other.
  static float sum(Vec a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float highest(Vec a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }
};

}  // namespace
}  // namespace fdq
