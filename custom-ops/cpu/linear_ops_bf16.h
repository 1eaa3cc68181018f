// Ops policy for AVX-512 with BF16 and VBMI: products of bfloat16 pairs, two k of 16 rows in one register.
//
// The instruction reads denormal inputs as zero, so decoding must never produce one; e4m3's smallest value is
// 2^-9.
#pragma once

#include <cstdint>

#include "cpu/linear.h"
#include "cpu/linear_vec_avx512.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

using Element = uint16_t;
constexpr int kTilePanels = 4;
constexpr int kTileTokens = 6;
constexpr int64_t kMaxFusedTokens = 48;
constexpr int64_t kFusedTokens = 8;
constexpr int fused_panels(int tokens) { return tokens <= 4 ? 4 : 2; }

struct Weights {
  __m512i v;

  static Weights load(const Element* p) { return {_mm512_load_si512(p)}; }
  void store(Element* p) const { _mm512_store_si512(p, v); }
};

struct KPair {
  __m512i v;

  static KPair load(const Element* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return {_mm512_set1_epi32(pair)};
  }
};

inline __m512 dot_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

struct Sum {
  __m512 v;

  static Sum zero() { return {_mm512_setzero_ps()}; }
  void multiply_add(Weights w, KPair x) { v = dot_pairs(v, w.v, x.v); }
  Rows finish() const { return {v}; }
};

// bfloat16 of 64 codes from a table of 128 magnitudes, low and high bytes apart, and the sign bit of the
// code.
class MagnitudeTable {
 public:
  explicit MagnitudeTable(float (*value)(uint8_t)) {
    alignas(64) uint8_t low[128], high[128];
    for (int i = 0; i < 128; ++i) {
      const uint16_t bits = float_to_bfloat16(value(static_cast<uint8_t>(i)));
      low[i] = static_cast<uint8_t>(bits);
      high[i] = static_cast<uint8_t>(bits >> 8);
    }
    for (int i = 0; i < 2; ++i) {
      low_[i] = _mm512_load_si512(low + 64 * i);
      high_[i] = _mm512_load_si512(high + 64 * i);
    }
    // Interleaving bytes works within quarters: the first halves of the quarters must hold the first 32
    // codes.
    order_ = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  }
  // `magnitudes` index the table with their low seven bits; bit 7 of `signs` is the sign.
  void decode(__m512i magnitudes, __m512i signs, Weights* w0, Weights* w1) const {
    magnitudes = _mm512_permutexvar_epi64(order_, magnitudes);
    signs = _mm512_permutexvar_epi64(order_, signs);
    const __m512i low = _mm512_permutex2var_epi8(low_[0], magnitudes, low_[1]);
    const __m512i high = _mm512_permutex2var_epi8(high_[0], magnitudes, high_[1]);
    constexpr int kOrMasked = 0xf8;  // a | (b & c)
    const __m512i top =
        _mm512_ternarylogic_epi32(high, signs, _mm512_set1_epi8(static_cast<char>(0x80)), kOrMasked);
    w0->v = _mm512_unpacklo_epi8(low, top);
    w1->v = _mm512_unpackhi_epi8(low, top);
  }

 private:
  __m512i low_[2], high_[2], order_;
};

inline float magnitude_of_e4m3(uint8_t code) { return e4m3_to_float(code == 0x7f ? uint8_t{0} : code); }

template <WeightFormat F>
struct Decoder;

template <>
struct Decoder<WeightFormat::kE4M3> {
  MagnitudeTable table{magnitude_of_e4m3};

  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    const __m512i bytes = _mm512_loadu_si512(codes);
    table.decode(bytes, bytes, w0, w1);
  }
};

template <>
struct Decoder<WeightFormat::kInt8> {
  static __m512i to_bfloat16(const uint8_t* codes) {
    const auto* bytes = reinterpret_cast<const __m128i*>(codes);
    const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes)));
    const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes + 1)));
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    w0->v = to_bfloat16(codes);
    w1->v = to_bfloat16(codes + 32);
  }
};

template <>
struct Decoder<WeightFormat::kInt4> {
  __m512i values;  // of 32 indices: bit 4 belongs to the other nibble and changes nothing

  Decoder() {
    alignas(64) uint16_t table[32];
    for (unsigned i = 0; i < 32; ++i) table[i] = float_to_bfloat16(static_cast<float>(nibble_to_int(i & 15)));
    values = _mm512_load_si512(table);
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    w0->v = _mm512_permutexvar_epi16(wide, values);
    w1->v = _mm512_permutexvar_epi16(_mm512_srli_epi16(wide, 4), values);
  }
};

template <>
struct Decoder<WeightFormat::kNF4> {
  __m512i values;  // of 32 indices, as int4 has them

  explicit Decoder(const float* nf4) {
    alignas(64) uint16_t table[32];
    for (unsigned i = 0; i < 32; ++i) table[i] = float_to_bfloat16(nf4[i & 15]);
    values = _mm512_load_si512(table);
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    w0->v = _mm512_permutexvar_epi16(wide, values);
    w1->v = _mm512_permutexvar_epi16(_mm512_srli_epi16(wide, 4), values);
  }
};

// [16 rows][2 k] of bfloat16 from the upper halves of 16 float32.
inline __m512i pair_rows(__m512 rows) {
  const __m512i bits = _mm512_castps_si512(rows);
  constexpr int kSelect = 0xe4;  // c ? a : b
  return _mm512_ternarylogic_epi32(bits, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(-0x10000), kSelect);
}

// Products of a value and a block scale have at most eight significant bits: a bfloat16 without rounding. A
// value is a sign, a power of two and perhaps `odd`, a factor of 1.5 (e2m1) or 3 (int2): its product is put
// together from that of the scale, whose exponent the power is added to.
template <WeightFormat F>
struct ScaledDecoder {
  static constexpr int kPairs = codes_per_byte(F);
  static constexpr bool kE2M1 = F == WeightFormat::kE2M1;
  // Of a table entry: there is the odd factor, the value is not 0.
  static constexpr int kOdd = 1, kNonZero = 2;

  struct Factor {
    __m512i even, odd;  // of each row twice: the scale and its odd multiple, less the flags of a table entry
    __mmask32 nonzero;
    Rows scales;
    bool plain;  // no product is subnormal or beyond bfloat16

    Factor(Rows factors, bool bounded) : scales(factors), plain(bounded || is_plain(factors.v)) {
      const __m512 rows = factors.v;
      const __m512i pairs = pair_rows(rows);
      even = _mm512_sub_epi16(pairs, _mm512_set1_epi16(kNonZero));
      odd = _mm512_sub_epi16(pair_rows(_mm512_mul_ps(rows, _mm512_set1_ps(kE2M1 ? 1.5f : 3.0f))),
                             _mm512_set1_epi16(kNonZero + kOdd));
      nonzero = _mm512_test_epi16_mask(pairs, pairs);
    }
    // Unsigned: the exponent of a zero becomes large, as those that are too large are; zeros are told apart.
    static bool is_plain(__m512 rows) {
      const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(rows), 1);
      const __m512i exponents = _mm512_srli_epi32(bits, 24);
      const __mmask16 extreme =
          _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(exponents, _mm512_set1_epi32(2)), _mm512_set1_epi32(248));
      return (extreme & _mm512_test_epi32_mask(bits, bits)) == 0;
    }
  };

  __m512i table;  // sign, power of two and flags of 32 indices, of which the lowest bits are a code
  __m512 values = _mm512_loadu_ps(ScaledTable<F>().values);

  ScaledDecoder() {
    alignas(64) uint16_t entries[32];
    for (unsigned i = 0; i < 32; ++i) {
      const float value = scaled_value<F>(i, 1.0f);
      const float size = value < 0 ? -value : value;
      const bool is_odd = kE2M1 ? (float_bits(size) >> 22 & 1) != 0 : size == 3.0f;
      const float power = is_odd ? size / (kE2M1 ? 1.5f : 3.0f) : size;
      const int shift = size == 0.0f ? 0 : (static_cast<int>(float_bits(power) >> 23) - 127) * 128;
      const int flags = size == 0.0f ? 0 : kNonZero + (is_odd ? kOdd : 0);
      entries[i] =
          static_cast<uint16_t>((float_bits(value) >> 31 << 15) + static_cast<unsigned>(shift + flags));
    }
    table = _mm512_load_si512(entries);
  }

  void decode(const uint8_t* codes, const Factor& factor, Weights* w) const {
    if (!factor.plain) return decode_wide(codes, PairFactor(factor.scales, false), w);
    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    for (int q = 0; q < kPairs; ++q) {
      const __m512i entry = _mm512_permutexvar_epi16(_mm512_srli_epi16(wide, 8 / kPairs * q), table);
      const __mmask32 is_odd = _mm512_test_epi16_mask(entry, _mm512_set1_epi16(kOdd));
      const __m512i base = _mm512_mask_blend_epi16(is_odd, factor.even, factor.odd);
      if constexpr (kE2M1) {
        const __mmask32 exists =
            _mm512_mask_test_epi16_mask(factor.nonzero, entry, _mm512_set1_epi16(kNonZero));
        w[q].v = _mm512_maskz_add_epi16(exists, entry, base);
      } else {
        w[q].v = _mm512_add_epi16(entry, base);  // no power of two: a scale of 0 stays 0
      }
    }
  }

  void decode_wide(const uint8_t* codes, const PairFactor& factor, Weights* w) const {
    const __m512i low = widen_codes(codes), high = widen_codes(codes + 16);
    for (int q = 0; q < kPairs; ++q) {
      const int shift = 8 / kPairs * q;
      const __m512 first = _mm512_permutexvar_ps(_mm512_srli_epi32(low, shift), values);
      const __m512 second = _mm512_permutexvar_ps(_mm512_srli_epi32(high, shift), values);
      w[q].v = reinterpret_cast<__m512i>(
          _mm512_cvtne2ps_pbh(_mm512_mul_ps(second, factor.v[1]), _mm512_mul_ps(first, factor.v[0])));
    }
  }
};

// code - zero point + 16 indexes a table of -16 .. 15.
template <>
struct ScaledDecoder<WeightFormat::kInt4> {
  static constexpr int kPairs = 2;
  struct Factor {
    __m512i offset;  // 8 - zero point, of each row twice

    Factor(Rows zeros, bool /*bounded*/) {
      const __m512i pairs = _mm512_cvtps_epi32(_mm512_sub_ps(_mm512_set1_ps(8.0f), zeros.v));
      offset =
          _mm512_or_si512(_mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(pairs, 16));
    }
  };

  __m512i values;

  ScaledDecoder() {
    alignas(64) uint16_t table[32];
    for (int i = 0; i < 32; ++i) table[i] = float_to_bfloat16(static_cast<float>(i - 16));
    values = _mm512_load_si512(table);
  }
  // Two's complement to code + 8: the top bit of the nibble changes.
  void decode(const uint8_t* codes, const Factor& factor, Weights* w) const {
    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    const __m512i top = _mm512_set1_epi16(8);
    const __m512i low = _mm512_and_si512(wide, _mm512_set1_epi16(15));
    const __m512i high = _mm512_srli_epi16(wide, 4);
    w[0].v = _mm512_permutexvar_epi16(_mm512_add_epi16(_mm512_xor_si512(low, top), factor.offset), values);
    w[1].v = _mm512_permutexvar_epi16(_mm512_add_epi16(_mm512_xor_si512(high, top), factor.offset), values);
  }
};

constexpr int64_t kDotLanes = 32;
constexpr int kDotTokens = 6;

struct DotX {
  __m512i v;

  static DotX load(const Element* p) { return {_mm512_loadu_si512(p)}; }
};

template <WeightFormat F>
DotX load_weights(const uint8_t* p) {
  static_assert(F == WeightFormat::kBFloat16, "other formats are not exact in bfloat16");
  return {_mm512_loadu_si512(p)};
}

struct DotSum {
  __m512 v;

  static DotSum zero() { return {_mm512_setzero_ps()}; }
  void multiply_add(DotX w, DotX x) { v = dot_pairs(v, w.v, x.v); }
  static void add_lanes(DotSum a, DotSum b, DotSum c, DotSum d, float* out) {
    add_lanes_of_four(a.v, b.v, c.v, d.v, out);
  }
};

}  // namespace
}  // namespace fdq
