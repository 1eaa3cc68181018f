// Ops policy for AVX-512 (F, BW, VL, DQ): products in float32, two k of 16 rows in two registers.
#pragma once

#include <cstdint>

#include "cpu/linear.h"
#include "cpu/linear_vec_avx512.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

using Element = float;
constexpr int kTilePanels = 2;
constexpr int kTileTokens = 6;
constexpr int64_t kMaxFusedTokens = 48;
constexpr int64_t kFusedTokens = 8;
constexpr int fused_panels(int tokens) { return tokens <= 2 ? 4 : tokens <= 4 ? 2 : 1; }

// Two k of 16 rows: [16][2].
struct Weights {
  __m512 v[2];

  static Weights load(const Element* p) { return {{_mm512_load_ps(p), _mm512_load_ps(p + 16)}}; }
  void store(Element* p) const {
    _mm512_store_ps(p, v[0]);
    _mm512_store_ps(p + 16, v[1]);
  }
};

struct KPair {
  __m512 v;

  static KPair load(const Element* p) {
    return {_mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_load_sd(reinterpret_cast<const double*>(p))))};
  }
};

struct Sum {
  __m512 v[2];

  static Sum zero() { return {{_mm512_setzero_ps(), _mm512_setzero_ps()}}; }
  void multiply_add(const Weights& w, KPair x) {
    v[0] = _mm512_fmadd_ps(w.v[0], x.v, v[0]);
    v[1] = _mm512_fmadd_ps(w.v[1], x.v, v[1]);
  }
  Rows finish() const {
    const __m512 even = _mm512_shuffle_ps(v[0], v[1], _MM_SHUFFLE(2, 0, 2, 0));
    const __m512 odd = _mm512_shuffle_ps(v[0], v[1], _MM_SHUFFLE(3, 1, 3, 1));
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return {_mm512_castpd_ps(_mm512_permutexvar_pd(order, _mm512_castps_pd(_mm512_add_ps(even, odd))))};
  }
};

template <WeightFormat F>
struct Decoder {
  static __m512 int8_to_float(const uint8_t* codes) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }
  // The permutation looks at four bits of each index only.
  static void nibbles_to_float(const uint8_t* codes, __m512* low, __m512* high) {
    const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m512i wide = _mm512_cvtepu8_epi32(bytes);
    *low = _mm512_permutexvar_ps(wide, values);
    *high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), values);
  }
  // 32 codes to w / 256: moved into place, e4m3 is a float16 whose exponent is 8 too small.
  static void e4m3_to_float(const uint8_t* codes, __m512* low, __m512* high) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
    const __m512i halves = _mm512_and_si512(_mm512_slli_epi16(_mm512_cvtepi8_epi16(bytes), 7),
                                            _mm512_set1_epi16(static_cast<int16_t>(0xbf80)));
    *low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
    *high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    if constexpr (F == WeightFormat::kInt8) {
      *w0 = {{int8_to_float(codes), int8_to_float(codes + 16)}};
      *w1 = {{int8_to_float(codes + 32), int8_to_float(codes + 48)}};
    } else if constexpr (F == WeightFormat::kInt4) {
      nibbles_to_float(codes, &w0->v[0], &w1->v[0]);
      nibbles_to_float(codes + 16, &w0->v[1], &w1->v[1]);
    } else {
      e4m3_to_float(codes, &w0->v[0], &w0->v[1]);
      e4m3_to_float(codes + 32, &w1->v[0], &w1->v[1]);
    }
  }
};

template <>
struct Decoder<WeightFormat::kNF4> {
  __m512 values;

  explicit Decoder(const float* table) : values(_mm512_loadu_ps(table)) {}
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 2; ++i) {
      const __m512i wide = widen_codes(codes + 16 * i);
      w0->v[i] = _mm512_permutexvar_ps(wide, values);
      w1->v[i] = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), values);
    }
  }
};

template <WeightFormat F>
struct ScaledDecoder {
  static constexpr int kPairs = codes_per_byte(F);
  using Factor = PairFactor;

  __m512 values = _mm512_loadu_ps(ScaledTable<F>().values);

  void decode(const uint8_t* codes, const Factor& factor, Weights* w) const {
    for (int i = 0; i < 2; ++i) {
      const __m512i wide = widen_codes(codes + 16 * i);
      for (int q = 0; q < kPairs; ++q) {
        const __m512 value = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 8 / kPairs * q), values);
        w[q].v[i] =
            F == WeightFormat::kInt4 ? _mm512_sub_ps(value, factor.v[i]) : _mm512_mul_ps(value, factor.v[i]);
      }
    }
  }
};

constexpr int64_t kDotLanes = 16;
constexpr int kDotTokens = 6;

struct DotX {
  __m512 v;

  static DotX load(const Element* p) { return {_mm512_loadu_ps(p)}; }
};

template <WeightFormat F>
DotX load_weights(const uint8_t* p) {
  if constexpr (F == WeightFormat::kFloat32) {
    return {_mm512_castsi512_ps(_mm512_loadu_si512(p))};
  } else {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (F == WeightFormat::kFloat16) return {_mm512_cvtph_ps(bits)};
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
}

struct DotSum {
  __m512 v;

  static DotSum zero() { return {_mm512_setzero_ps()}; }
  void multiply_add(DotX w, DotX x) { v = _mm512_fmadd_ps(w.v, x.v, v); }
  static void add_lanes(DotSum a, DotSum b, DotSum c, DotSum d, float* out) {
    add_lanes_of_four(a.v, b.v, c.v, d.v, out);
  }
};

}  // namespace
}  // namespace fdq
