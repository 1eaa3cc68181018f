// Products of attention in float32. Include after one of vector_math_*.h.
#pragma once

#include "cpu/attention_step.h"

namespace fdq {
namespace {

struct FloatProducts {
  using Query = float;
  using Staged = float;
  static constexpr int kUnit = 1;

  static int64_t query_stride(int64_t head_dim) { return head_dim; }

  static Vec store_weights(float* row, int p, Vec weights) {
    Vec::store(row + p, weights);
    return weights;
  }

  // Keys of the pool -> [head_dim][16], widened.
  template <typename E>
  static void stage_keys(const E* keys, const E* ahead, int64_t head_dim, float* out) {
    for (int64_t d = 0; d < head_dim; ++d) {
      Vec::store(out + d * kKvBlockSize, load_keys(keys, d));
      fetch(ahead + KvElement<E>::index(d) * kKvBlockSize);
    }
  }

  // Values of the pool -> [16][padded], widened.
  template <typename E>
  static void stage_values(const E* values, const E* ahead, int64_t head_dim, int64_t padded, float* out) {
    const int64_t stride = KvElement<E>::value_stride(head_dim);
    for (int64_t p = 0; p < kKvBlockSize; ++p) {
      const E* row = values + p * stride;
      int64_t i = 0;
      for (; i + 16 <= head_dim; i += 16) {
        Vec::store(out + p * padded + i, load_values(row + KvElement<E>::index(i)));
        fetch(ahead + p * stride + KvElement<E>::index(i));
      }
      if (i < head_dim) {
        const E* rest = row + KvElement<E>::index(i);
        Vec::store(out + p * padded + i, load_values(rest, static_cast<int>(head_dim - i)));
      }
    }
  }

  template <int R, int C, typename S>
  static void score_columns(const float* const* q, const S& step, int first, int64_t head_dim,
                            float* scores) {
    const typename S::E* const* keys = step.keys + first;
    const typename S::E* const* ahead = step.values + first;
    Vec sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = Vec::set(0.0f);
    }
    for (int64_t d = 0; d < head_dim; ++d) {
      Vec key[C];
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) {
        key[c] = load_keys(keys[c], d);
        if (S::kStreamed) fetch(ahead[c] + S::index(d) * kKvBlockSize);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Vec x = Vec::set(q[r][d]);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[r][c] = Vec::fma(x, key[c], sum[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c)
        Vec::store(scores + r * kAttentionChunk + (first + c) * kKvBlockSize, sum[r][c]);
    }
  }

  // sums [R][padded] += weights [R][128] of positions [from, to) times C columns of 16 of their values, of
  // which only the first `width` entries exist.
  template <int R, int C, typename S>
  static void add_value_columns(const float* weights, const S& step, Span span, int64_t column, int width,
                                float* sums, int64_t padded) {
    Vec sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) sum[r][c] = Vec::load(sums + r * padded + column + c * 16);
    }
    for (int p = span.from; p < span.to;) {
      const int64_t offset = (p % kKvBlockSize) * step.value_stride + S::index(column);
      const typename S::E* row = step.values[p / kKvBlockSize] + offset;
      const typename S::E* ahead = step.next_keys[p / kKvBlockSize] + offset;
      const int block_end = (p / kKvBlockSize + 1) * kKvBlockSize;
      const int end = block_end < span.to ? block_end : span.to;
      for (; p < end; ++p, row += step.value_stride, ahead += step.value_stride) {
        Vec value[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
          value[c] = width == C * 16 ? load_values(row + S::index(c * 16)) : load_values(row, width);
          if (S::kStreamed) fetch(ahead + S::index(c * 16));
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const Vec w = Vec::set(weights[r * kAttentionChunk + p]);
#pragma GCC unroll 8
          for (int c = 0; c < C; ++c) sum[r][c] = Vec::fma(w, value[c], sum[r][c]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int c = 0; c < C; ++c) Vec::store(sums + r * padded + column + c * 16, sum[r][c]);
    }
  }
};

}  // namespace
}  // namespace fdq
