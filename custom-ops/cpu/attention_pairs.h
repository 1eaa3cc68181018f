// Products of attention in bfloat16 pairs (vdpbf16ps), accumulated in float32: queries and softmax weights
// are rounded to bfloat16, as flash-attention does; keys and values are multiplied as stored: the values of
// all codes are bfloat16 numbers. Include after vector_math_avx512.h.
//
//   score(r, position) += q(r, d) * key(d, position) + q(r, d + 1) * key(d + 1, position)
//   sum(r, d) += w(r, p) * value(p, d) + w(r, p + 1) * value(p + 1, d)      p even, an unseen half is zero
//
// The instruction reads denormals as zero.
#pragma once

#include <cstring>

#include "cpu/attention_step.h"

namespace fdq {
namespace {

// Two bfloat16 that are multiplied together: entries d and d + 1, or positions p and p + 1.
struct Bf16Pair {
  uint16_t first, second;
};

struct PairProducts {
  using Query = uint16_t;
  using Staged = Bf16Pair;
  static constexpr int kUnit = 2;

  static int64_t query_stride(int64_t head_dim) { return round_up(head_dim, 2); }

  // In place: 16 weights take the place of 8 of the scores before them.
  static Vec store_weights(float* row, int p, Vec weights) {
    const auto bits = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(weights.v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(reinterpret_cast<uint16_t*>(row) + p), bits);
    return {Vec::widen(bits)};
  }

  // Keys of the pool -> [pairs of entries][16 positions][2]
  template <typename E>
  static void stage_keys(const E* keys, const E* ahead, int64_t head_dim, Bf16Pair* out) {
    for (int64_t d = 0; d < head_dim; d += 2) {
      _mm512_store_si512(out + d / 2 * kKvBlockSize, pair_keys(keys, d, head_dim));
      fetch(ahead + KvElement<E>::index(d) * kKvBlockSize);
    }
  }

  // Values of the pool -> [8 pairs of positions][padded][2]
  template <typename E>
  static void stage_values(const E* values, const E* ahead, int64_t head_dim, int64_t padded, Bf16Pair* out) {
    const int64_t stride = KvElement<E>::value_stride(head_dim);
    for (int p = 0; p < kKvBlockSize; p += 2) {
      for (int64_t i = 0; i < head_dim; i += 16) {
        const int width = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
        const int64_t at = KvElement<E>::index(i);
        _mm512_store_si512(out + p / 2 * padded + i, pair_values(values + at, p, stride, width));
        fetch(ahead + p * stride + at);
        fetch(ahead + (p + 1) * stride + at);
      }
    }
  }

  template <int R, int C, typename S>
  static void score_columns(const uint16_t* const* q, const S& step, int first, int64_t head_dim,
                            float* scores) {
    const typename S::E* const* keys = step.keys + first;
    const typename S::E* const* ahead = step.values + first;
    __m512 sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_ps();
    }
    for (int64_t d = 0; d < head_dim; d += 2) {
      __m512i key[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        key[c] = pair_keys(keys[c], d, head_dim);
        if (S::kStreamed) fetch(ahead[c] + S::index(d) * kKvBlockSize);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i x = broadcast(q[r] + d);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = dot(sum[r][c], key[c], x);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        _mm512_storeu_ps(scores + r * kAttentionChunk + (first + c) * kKvBlockSize, sum[r][c]);
      }
    }
  }

  // sums [R][padded] += weights of positions [span.from, span.to) times C columns of 16 of their values, of
  // which only the first `width` entries exist. Only one row alone may begin or end within a pair.
  template <int R, int C, typename S>
  static void add_value_columns(const float* weights, const S& step, Span span, int64_t column, int width,
                                float* sums, int64_t padded) {
    __m512 sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = _mm512_loadu_ps(sums + r * padded + column + c * 16);
    }
    for (int p = span.from / 2 * 2; p < span.to; p += 2) {
      const int block = p / kKvBlockSize, place = p % kKvBlockSize;
      const typename S::E* values = step.values[block] + S::index(column);
      __m512i value[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        const int entries = width == C * 16 ? 16 : width;
        value[c] = pair_values(values + S::index(c * 16), place, step.value_stride, entries);
        if constexpr (R == 1) value[c] = _mm512_and_si512(value[c], _mm512_set1_epi32(seen(span, p)));
        if (S::kStreamed) {
          const typename S::E* ahead =
              step.next_keys[block] + place * step.value_stride + S::index(column + c * 16);
          fetch(ahead);
          fetch(ahead + step.value_stride);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i w = broadcast(reinterpret_cast<const uint16_t*>(weights + r * kAttentionChunk) + p);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = dot(sum[r][c], value[c], w);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) _mm512_storeu_ps(sums + r * padded + column + c * 16, sum[r][c]);
    }
  }

 private:
  static __m512 dot(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static __m512i broadcast(const uint16_t* pair) {
    int32_t bits;
    std::memcpy(&bits, pair, sizeof bits);
    return _mm512_set1_epi32(bits);
  }
  // Two runs of 16 become 16 pairs.
  static __m512i interleave(__m512i runs) {
    constexpr uint64_t kFirst = 0x0011'0001'0010'0000, kStep = 0x0002'0002'0002'0002;
    const __m512i order =
        _mm512_setr_epi64(kFirst, kFirst + kStep, kFirst + 2 * kStep, kFirst + 3 * kStep, kFirst + 4 * kStep,
                          kFirst + 5 * kStep, kFirst + 6 * kStep, kFirst + 7 * kStep);
    return _mm512_permutexvar_epi16(order, runs);
  }

  // Entries d and d + 1 of 16 positions; an entry past the last is zero.
  static __m512i pair_keys(const uint16_t* block, int64_t d, int64_t head_dim) {
    const __mmask32 lanes = d + 2 <= head_dim ? 0xffffffffu : 0xffffu;
    return interleave(_mm512_maskz_loadu_epi16(lanes, block + d * kKvBlockSize));
  }
  static __m512i pair_keys(const Bf16Pair* block, int64_t d, int64_t) {
    return _mm512_load_si512(block + d / 2 * kKvBlockSize);
  }

  // Positions p and p + 1 of a block, 16 entries of which the first `width` exist.
  static __m512i pair_values(const uint16_t* block, int p, int64_t stride, int width) {
    const uint16_t* row = block + p * stride;
    const auto lanes = static_cast<__mmask16>((1u << width) - 1);
    const __m256i first = _mm256_maskz_loadu_epi16(lanes, row);
    const __m256i second = _mm256_maskz_loadu_epi16(lanes, row + stride);
    return interleave(_mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
  }
  static __m512i pair_values(const Bf16Pair* block, int p, int64_t stride, int) {
    return _mm512_load_si512(block + p / 2 * stride);
  }

  // The same of codes, whose values are bfloat16 numbers. Quantized records are padded.
  template <typename E>
  static __m512i pair_keys(const E* block, int64_t d, int64_t) {
    return join(load_keys(block, d), load_keys(block, d + 1));
  }
  static __m512i pair_keys(const Int4Codes* block, int64_t d, int64_t) {
    const __m512i both = _mm512_cvtepu8_epi32(load_sixteen(block + d / 2 * kKvBlockSize));
    return join(nibble_values(both), nibble_values(_mm512_srli_epi32(both, 4)));
  }
  template <typename E>
  static __m512i pair_values(const E* block, int p, int64_t stride, int) {
    const E* row = block + p * stride;
    return join(load_values(row), load_values(row + stride));
  }
  static __m512i join(Vec first, Vec second) {
    const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(first.v), 16);
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_castps_si512(second.v));
  }

  // Bits of the positions p and p + 1 that are in the span.
  static int32_t seen(Span span, int p) {
    return static_cast<int32_t>((p >= span.from ? 0xffffu : 0u) | (p + 1 < span.to ? 0xffff0000u : 0u));
  }
};

}  // namespace
}  // namespace fdq
