// Ops policy for AVX2, FMA and F16C: 16 rows are two registers, two k of them four.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/linear.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

using Element = float;
constexpr int kTilePanels = 1;
constexpr int kTileTokens = 2;
constexpr int64_t kMaxFusedTokens = 2;
constexpr int64_t kFusedTokens = 2;
constexpr int fused_panels(int tokens) { return tokens == 1 ? 2 : 1; }
inline void prefetch(const void* address) { _mm_prefetch(static_cast<const char*>(address), _MM_HINT_T0); }

struct Rows {
  __m256 low, high;

  static Rows set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Rows load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, Rows a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
  }
  static Rows add(Rows a, Rows b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
  static Rows mul(Rows a, Rows b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static Rows fma(Rows a, Rows b, Rows c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
};

// 16 narrow scales as float32.
inline Rows widen_block_scales(BlockScaleType type, const uint8_t* scales) {
  float values[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r) {
    values[r] = block_scale_to_float(type, scales + r * block_scale_bytes(type));
  }
  return Rows::load(values);
}

// Two k of 16 rows: [16][2].
struct Weights {
  __m256 v[4];

  static Weights load(const Element* p) {
    return {{_mm256_load_ps(p), _mm256_load_ps(p + 8), _mm256_load_ps(p + 16), _mm256_load_ps(p + 24)}};
  }
  void store(Element* p) const {
    for (int i = 0; i < 4; ++i) _mm256_store_ps(p + 8 * i, v[i]);
  }
};

struct KPair {
  __m256 v;

  static KPair load(const Element* p) {
    return {_mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)))};
  }
};

// Members, not an array: gcc would keep that in memory and store it at every step.
struct Sum {
  __m256 a, b, c, d;

  static Sum zero() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
  }
  void multiply_add(const Weights& w, KPair x) {
    a = _mm256_fmadd_ps(w.v[0], x.v, a);
    b = _mm256_fmadd_ps(w.v[1], x.v, b);
    c = _mm256_fmadd_ps(w.v[2], x.v, c);
    d = _mm256_fmadd_ps(w.v[3], x.v, d);
  }
  // Even and odd k of a row are neighbours: a horizontal add, then the middle quarters change places.
  static __m256 add_neighbours(__m256 low, __m256 high) {
    const __m256d sums = _mm256_castps_pd(_mm256_hadd_ps(low, high));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(sums, _MM_SHUFFLE(3, 1, 2, 0)));
  }
  Rows finish() const { return {add_neighbours(a, b), add_neighbours(c, d)}; }
};

template <WeightFormat F>
struct Decoder {
  static __m256 int8_to_float(const uint8_t* codes) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  static void nibbles_to_float(const uint8_t* codes, __m256* low, __m256* high) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
    const __m256i wide = _mm256_cvtepi8_epi32(bytes);
    *low = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(wide, 28), 28));
    *high = _mm256_cvtepi32_ps(_mm256_srai_epi32(wide, 4));
  }
  // 16 codes to w / 256: moved into place, e4m3 is a float16 whose exponent is 8 too small.
  static void e4m3_to_float(const uint8_t* codes, __m256* low, __m256* high) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7),
                                            _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    *low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    *high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    if constexpr (F == WeightFormat::kInt8) {
      for (int i = 0; i < 4; ++i) {
        w0->v[i] = int8_to_float(codes + 8 * i);
        w1->v[i] = int8_to_float(codes + 32 + 8 * i);
      }
    } else if constexpr (F == WeightFormat::kInt4) {
      for (int i = 0; i < 4; ++i) nibbles_to_float(codes + 8 * i, &w0->v[i], &w1->v[i]);
    } else {
      for (int i = 0; i < 4; i += 2) {
        e4m3_to_float(codes + 8 * i, &w0->v[i], &w0->v[i + 1]);
        e4m3_to_float(codes + 32 + 8 * i, &w1->v[i], &w1->v[i + 1]);
      }
    }
  }
};

// 16 values by their index: eight and eight, and bit 3 chooses.
class NibbleTable {
 public:
  explicit NibbleTable(const float* values)
      : low_(_mm256_loadu_ps(values)), high_(_mm256_loadu_ps(values + 8)) {}
  // 8 indices of 32 bits, of which four count.
  __m256 look_up(__m256i index) const {
    const __m256 choice = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low_, index), _mm256_permutevar8x32_ps(high_, index),
                            choice);
  }

 private:
  __m256 low_, high_;
};

inline __m256i widen_codes(const uint8_t* codes) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
}

template <>
struct Decoder<WeightFormat::kNF4> {
  NibbleTable table;

  explicit Decoder(const float* values) : table(values) {}
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 4; ++i) {
      const __m256i wide = widen_codes(codes + 8 * i);
      w0->v[i] = table.look_up(wide);
      w1->v[i] = table.look_up(_mm256_srli_epi32(wide, 4));
    }
  }
};

template <WeightFormat F>
struct ScaledDecoder {
  static constexpr int kPairs = codes_per_byte(F);
  struct Factor {
    __m256 v[4];  // of each row twice

    Factor(Rows rows, bool /*bounded*/) {
      const __m256i low = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3),
                    high = _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7);
      v[0] = _mm256_permutevar8x32_ps(rows.low, low);
      v[1] = _mm256_permutevar8x32_ps(rows.low, high);
      v[2] = _mm256_permutevar8x32_ps(rows.high, low);
      v[3] = _mm256_permutevar8x32_ps(rows.high, high);
    }
  };

  NibbleTable table{ScaledTable<F>().values};

  void decode(const uint8_t* codes, const Factor& factor, Weights* w) const {
    for (int i = 0; i < 4; ++i) {
      const __m256i wide = widen_codes(codes + 8 * i);
      for (int q = 0; q < kPairs; ++q) {
        const __m256 value = table.look_up(_mm256_srli_epi32(wide, 8 / kPairs * q));
        w[q].v[i] =
            F == WeightFormat::kInt4 ? _mm256_sub_ps(value, factor.v[i]) : _mm256_mul_ps(value, factor.v[i]);
      }
    }
  }
};

constexpr int64_t kDotLanes = 8;
constexpr int kDotTokens = 3;

struct DotX {
  __m256 v;

  static DotX load(const Element* p) { return {_mm256_loadu_ps(p)}; }
};

template <WeightFormat F>
DotX load_weights(const uint8_t* p) {
  if constexpr (F == WeightFormat::kFloat32) {
    return {_mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  } else {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (F == WeightFormat::kFloat16) return {_mm256_cvtph_ps(bits)};
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
}

struct DotSum {
  __m256 v;

  static DotSum zero() { return {_mm256_setzero_ps()}; }
  void multiply_add(DotX w, DotX x) { v = _mm256_fmadd_ps(w.v, x.v, v); }
  static void add_lanes(DotSum a, DotSum b, DotSum c, DotSum d, float* out) {
    const __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a.v, b.v), _mm256_hadd_ps(c.v, d.v));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
  }
};

}  // namespace
}  // namespace fdq
