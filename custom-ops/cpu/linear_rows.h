// As-stored row-major weights over an Ops policy (linear_ops_*.h). Include after one of them.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear.h"

namespace fdq {
namespace {

constexpr int64_t kXCacheBytes = 24 * 1024;  // of x that rows are run over while it stays in the first level

// Row pointers of a tile, and zero-padded copies of what is left of each after the last whole step.
template <WeightFormat F, int R>
struct RowTile {
  static constexpr int64_t kElementBytes = F == WeightFormat::kFloat32 ? 4 : 2;
  const uint8_t* rows[R];
  alignas(64) uint8_t tail[R][kDotLanes * kElementBytes];

  RowTile(const RowJob& job, int64_t first, int64_t last) {
    const int64_t tail_elements = job.k % kDotLanes;
    for (int r = 0; r < R; ++r) {
      const int64_t row = first + r < last ? first + r : last - 1;
      rows[r] = job.weight + row * job.k * kElementBytes;
      if (tail_elements == 0) continue;
      std::memset(tail[r], 0, sizeof tail[r]);
      std::memcpy(tail[r], rows[r] + (job.k - tail_elements) * kElementBytes,
                  static_cast<size_t>(tail_elements * kElementBytes));
    }
  }
};

// R rows (a multiple of 4) times T tokens; the first tile of a row brings the rows computed next into the
// cache. Rows past `last` and tokens past the end are computed twice and dropped.
template <WeightFormat F, int R, int T, bool kPrefetch>
void run_dot_tile(const RowJob& job, const RowTile<F, R>& tile, int64_t row, int64_t last, int64_t token) {
  constexpr int64_t kElementBytes = RowTile<F, R>::kElementBytes;
  const auto* x_base = static_cast<const Element*>(job.x);
  const Element* x[T];
  for (int t = 0; t < T; ++t) x[t] = x_base + (token + t) * job.x_stride;
  DotSum sum[R][T];
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < T; ++t) sum[r][t] = DotSum::zero();
  }
  const int64_t whole = job.k / kDotLanes * kDotLanes;
  const int64_t ahead = R * job.k * kElementBytes;
  for (int64_t k = 0; k < whole; k += kDotLanes) {
    DotX values[T];
    for (int t = 0; t < T; ++t) values[t] = DotX::load(x[t] + k);
    for (int r = 0; r < R; ++r) {
      const uint8_t* source = tile.rows[r] + k * kElementBytes;
      if constexpr (kPrefetch) prefetch(source + ahead);
      const DotX weight = load_weights<F>(source);
      for (int t = 0; t < T; ++t) sum[r][t].multiply_add(weight, values[t]);
    }
  }
  if (whole < job.k) {
    for (int r = 0; r < R; ++r) {
      const DotX weight = load_weights<F>(tile.tail[r]);
      for (int t = 0; t < T; ++t) sum[r][t].multiply_add(weight, DotX::load(x[t] + whole));
    }
  }
  for (int r = 0; r < R; r += 4) {
    const int64_t left = last - (row + r);
    const int count = left > 4 ? 4 : static_cast<int>(left);
    for (int t = 0; t < T; ++t) {
      float values[4];
      DotSum::add_lanes(sum[r][t], sum[r + 1][t], sum[r + 2][t], sum[r + 3][t], values);
      float* y = job.y + (token + t) * job.n + row + r;
      for (int i = 0; i < count; ++i)
        y[i] = job.bias != nullptr ? values[i] + job.bias[row + r + i] : values[i];
    }
  }
}

template <WeightFormat F, int T, bool kPrefetch>
void run_dot_tail(const RowJob& job, const RowTile<F, 4>& tile, int64_t row, int64_t last, int64_t token,
                  int64_t tokens) {
  if constexpr (T > 0) {
    if (tokens == T) {
      run_dot_tile<F, 4, T, kPrefetch>(job, tile, row, last, token);
    } else {
      run_dot_tail<F, T - 1, kPrefetch>(job, tile, row, last, token, tokens);
    }
  }
}

template <WeightFormat F>
void run_rows(const RowJob& job, int64_t first, int64_t last) {
  if (job.tokens == 1) {
    for (int64_t row = first; row < last; row += 8) {
      run_dot_tile<F, 8, 1, true>(job, RowTile<F, 8>(job, row, last), row, last, 0);
    }
    return;
  }
  const int64_t token_bytes = job.x_stride * static_cast<int64_t>(sizeof(Element));
  int64_t chunk = kXCacheBytes / token_bytes / kDotTokens * kDotTokens;
  if (chunk < kDotTokens) chunk = kDotTokens;
  for (int64_t start = 0; start < job.tokens; start += chunk) {
    const int64_t end = start + chunk < job.tokens ? start + chunk : job.tokens;
    for (int64_t row = first; row < last; row += 4) {
      const RowTile<F, 4> tile(job, row, last);
      int64_t token = start;
      if (token == 0 && end >= kDotTokens) {
        run_dot_tile<F, 4, kDotTokens, true>(job, tile, row, last, token);
        token = kDotTokens;
      }
      for (; token + kDotTokens <= end; token += kDotTokens) {
        run_dot_tile<F, 4, kDotTokens, false>(job, tile, row, last, token);
      }
      if (token == 0) {
        run_dot_tail<F, kDotTokens - 1, true>(job, tile, row, last, token, end);
      } else {
        run_dot_tail<F, kDotTokens - 1, false>(job, tile, row, last, token, end - token);
      }
    }
  }
}

}  // namespace
}  // namespace fdq
