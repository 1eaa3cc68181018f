// Attention over a paged pool, written over Vec (16 lanes) and Products (attention_step.h). Include after one
// of vector_math_*.h.
//
// Flash-attention's online softmax (Dao et al., 2022; Milakov & Gimelshein, 2018) in steps of 128 positions.
// What makes a row's result its own: its scores are sums over the head's entries in order, its values are
// added in order of position, only positions it sees are multiplied, and steps begin at absolute positions.
// Rows share loads of keys and values, never an accumulator.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/attention_step.h"

namespace fdq {
namespace {

// scores [R][128] of the blocks [first, last).
template <typename P, int R, typename S>
void score_rows(const typename P::Query* const* q, const S& step, int64_t head_dim, int first, int last,
                float* scores) {
  constexpr int kColumns = Vec::tile_columns(R);
  int b = first;
  for (; b + kColumns <= last; b += kColumns) {
    P::template score_columns<R, kColumns>(q, step, b, head_dim, scores);
  }
  for (; b < last; ++b) P::template score_columns<R, 1>(q, step, b, head_dim, scores);
}

template <typename P, int R, typename S>
void add_values(const float* weights, const S& step, Span span, int64_t head_dim, float* sums,
                int64_t padded) {
  if (span.from >= span.to) return;
  constexpr int kColumns = Vec::tile_columns(R);
  int64_t column = 0;
  for (; column + kColumns * 16 <= head_dim; column += kColumns * 16) {
    P::template add_value_columns<R, kColumns>(weights, step, span, column, kColumns * 16, sums, padded);
  }
  for (; column < head_dim; column += 16) {
    const int width = head_dim - column < 16 ? static_cast<int>(head_dim - column) : 16;
    P::template add_value_columns<R, 1>(weights, step, span, column, width, sums, padded);
  }
}

// 16 products times what turns codes into values, from position p of a quantized step on.
template <typename S>
Vec apply_scales(Vec products, const S&, const float* const* scales, int p) {
  const Vec unit = Vec::set(KvElement<typename S::PoolElement>::kUnit);
  return Vec::mul(products, Vec::mul(Vec::load(scales[p / kKvBlockSize]), unit));
}

// Turns a row's scores into weights exp(score - maximum so far) and brings its state and sums to that
// maximum.
template <typename P, typename S>
void soften_row(float* scores, const S& step, Span span, float* maximum, float* total, float* sums,
                int64_t padded) {
  const int first = span.from / 16 * 16;
  Vec top = Vec::set(-INFINITY);
  for (int p = first; p < span.to; p += 16) {
    Vec s = Vec::load(scores + p);
    if constexpr (S::kScaled) s = apply_scales(s, step, step.key_scales, p);
    s = Vec::keep(s, span.from - p, span.to - p, -INFINITY);
    Vec::store(scores + p, s);
    top = Vec::max(s, top);
  }
  const float highest = Vec::highest(top);
  const float now = highest > *maximum ? highest : *maximum;
  // A row whose every score so far is -inf has weights 0, not NaN.
  const Vec shift = Vec::set(now == -INFINITY ? 0.0f : now);
  Vec sum = Vec::set(0.0f);
  for (int p = first; p < span.to; p += 16) {
    const Vec w = exp_lanes(Vec::sub(Vec::load(scores + p), shift));
    if constexpr (S::kScaled) {
      sum = Vec::add(sum, w);
      // Scales of positions that the row does not see may be NaN.
      const Vec scaled = apply_scales(w, step, step.value_scales, p);
      P::store_weights(scores, p, Vec::keep(scaled, span.from - p, span.to - p, 0.0f));
    } else {
      sum = Vec::add(sum, P::store_weights(scores, p, w));
    }
  }
  if (now == *maximum) {
    *total += Vec::sum(sum);
    return;
  }
  const Vec fade = exp_lanes(Vec::sub(Vec::set(*maximum), shift));
  float first_lane[16];
  Vec::store(first_lane, fade);
  *total = *total * first_lane[0] + Vec::sum(sum);
  *maximum = now;
  for (int64_t i = 0; i < padded; i += 16) Vec::store(sums + i, Vec::mul(Vec::load(sums + i), fade));
}

struct RowState {
  float* maximum;
  float* total;
  float* scores;  // [128]
  float* sums;    // [padded]
  int64_t padded;
};

template <typename P, int R, typename S>
void step_rows(const typename P::Query* const* q, const S& step, int64_t head_dim, const Span* spans,
               const RowState& state) {
  Span any{kAttentionChunk, 0}, all{0, kAttentionChunk};
  for (int r = 0; r < R; ++r) {
    if (spans[r].from < spans[r].to) {
      any.from = spans[r].from < any.from ? spans[r].from : any.from;
      any.to = spans[r].to > any.to ? spans[r].to : any.to;
    }
    all.from = spans[r].from > all.from ? spans[r].from : all.from;
    all.to = spans[r].to < all.to ? spans[r].to : all.to;
  }
  if (any.from >= any.to) return;
  const int last_block = (any.to + kKvBlockSize - 1) / kKvBlockSize;
  score_rows<P, R>(q, step, head_dim, any.from / kKvBlockSize, last_block, state.scores);
  for (int r = 0; r < R; ++r) {
    if (spans[r].from >= spans[r].to) continue;
    soften_row<P>(state.scores + r * kAttentionChunk, step, spans[r], state.maximum + r, state.total + r,
                  state.sums + r * state.padded, state.padded);
  }
  // Positions that only some rows see are added row by row: 0 times a value that a row must not see could
  // still be NaN.
  if constexpr (R > 1) {
    all.from = static_cast<int>(round_up(all.from, P::kUnit));
    all.to = all.to / P::kUnit * P::kUnit;
  }
  const bool shared = all.from < all.to;
  for (int r = 0; r < R && R > 1; ++r) {
    const Span before{spans[r].from, shared ? all.from : spans[r].to};
    add_values<P, 1>(state.scores + r * kAttentionChunk, step, before, head_dim,
                     state.sums + r * state.padded, state.padded);
  }
  if (shared) add_values<P, R>(state.scores, step, all, head_dim, state.sums, state.padded);
  for (int r = 0; r < R && R > 1 && shared; ++r) {
    const Span after{all.to, spans[r].to};
    add_values<P, 1>(state.scores + r * kAttentionChunk, step, after, head_dim, state.sums + r * state.padded,
                     state.padded);
  }
}

template <typename P, int R, typename S>
void dispatch_rows(int rows, const typename P::Query* const* q, const S& step, int64_t head_dim,
                   const Span* spans, const RowState& state) {
  if constexpr (R > 1) {
    if (rows < R) return dispatch_rows<P, R - 1>(rows, q, step, head_dim, spans, state);
  }
  step_rows<P, R>(q, step, head_dim, spans, state);
}

// Brings the step's blocks into the form that is multiplied, once for all rows of the tile.
template <typename P, typename E>
Step<typename P::Staged, false, E> stage(const Step<E, true, E>& step, int64_t head_dim,
                                         const TileScratch& layout, float* scratch) {
  using Staged = typename P::Staged;
  Step<Staged, false, E> staged{};
  staged.value_stride = layout.padded_dim;
  for (int b = 0; b < kBlocksPerChunk; ++b) {
    if (step.keys[b] == nullptr) continue;
    auto* keys = reinterpret_cast<Staged*>(scratch + layout.keys + b * layout.key_block);
    auto* values = reinterpret_cast<Staged*>(scratch + layout.values + b * layout.value_block);
    P::stage_keys(step.keys[b], step.values[b], head_dim, keys);
    P::stage_values(step.values[b], step.next_keys[b], head_dim, layout.padded_dim, values);
    staged.keys[b] = keys;
    staged.values[b] = values;
    staged.key_scales[b] = step.key_scales[b];
    staged.value_scales[b] = step.value_scales[b];
  }
  return staged;
}

struct TileView {
  const AttentionArgs& args;
  const AttentionTile& tile;
  const TileScratch& layout;
  float* scratch;
  int64_t group;
  int64_t first_token;     // of the sequence, in the packed step
  int64_t first_position;  // of that token

  int64_t position(int64_t row) const { return first_position + (tile.first_row + row) / group; }
  int64_t oldest(int64_t row) const {
    const int64_t p = position(row);
    return args.window > 0 && p >= args.window ? p - args.window + 1 : 0;
  }
  // Of the row among [tokens][num_heads] heads.
  int64_t head(int64_t row) const {
    const int64_t r = tile.first_row + row;
    return (first_token + r / group) * args.num_heads + tile.kv_head * group + r % group;
  }
  float* maximum() const { return scratch + layout.state; }
  float* total() const { return maximum() + tile.rows; }
};

template <typename P, typename S>
void step_tile(const TileView& view, const typename P::Query* q, const S& step, int64_t start) {
  for (int64_t row = 0; row < view.tile.rows; row += Vec::kRegisterRows) {
    const int64_t rest = view.tile.rows - row;
    const int rows = rest < Vec::kRegisterRows ? static_cast<int>(rest) : Vec::kRegisterRows;
    const typename P::Query* queries[Vec::kRegisterRows] = {};
    Span spans[Vec::kRegisterRows] = {};
    for (int r = 0; r < rows; ++r) {
      queries[r] = q + view.head(row + r) * P::query_stride(view.args.head_dim);
      const int64_t from = view.oldest(row + r) - start;
      const int64_t to = view.position(row + r) + 1 - start;
      spans[r].from = from < 0 ? 0 : from > kAttentionChunk ? kAttentionChunk : static_cast<int>(from);
      spans[r].to = to < 0 ? 0 : to > kAttentionChunk ? kAttentionChunk : static_cast<int>(to);
    }
    const RowState state{
        view.maximum() + row, view.total() + row, view.scratch + view.layout.scores + row * kAttentionChunk,
        view.scratch + view.layout.sums + row * view.layout.padded_dim, view.layout.padded_dim};
    dispatch_rows<P, Vec::kRegisterRows>(rows, queries, step, view.args.head_dim, spans, state);
  }
}

// The blocks of the step at `start`, of which rows look at positions [oldest, end).
template <typename E>
Step<E, true, E> find_blocks(const TileView& view, int64_t start, int64_t oldest, int64_t end) {
  const AttentionArgs& args = view.args;
  const int32_t* table = args.block_tables + view.tile.sequence * args.block_table_stride;
  Step<E, true, E> step{};
  step.value_stride = KvElement<E>::value_stride(args.head_dim);
  const auto record = [&](int64_t at, bool values) {
    return kv_record(args.pool, args.layer, table[at / kKvBlockSize], view.tile.kv_head, values);
  };
  for (int b = 0; b < kBlocksPerChunk; ++b) {
    const int64_t position = start + b * kKvBlockSize;
    if (position >= end || position + kKvBlockSize <= oldest) continue;
    const uint8_t* keys = record(position, false);
    const uint8_t* values = record(position, true);
    step.keys[b] = reinterpret_cast<const E*>(keys);
    step.values[b] = reinterpret_cast<const E*>(values);
    if constexpr (KvElement<E>::kQuantized) {
      const int64_t codes = kv_code_bytes(args.pool.type, args.head_dim);
      step.key_scales[b] = reinterpret_cast<const float*>(keys + codes);
      step.value_scales[b] = reinterpret_cast<const float*>(values + codes);
      fetch(step.key_scales[b]);
      fetch(step.value_scales[b]);
    }
    const bool more = position + kAttentionChunk < end;
    step.next_keys[b] =
        more ? reinterpret_cast<const E*>(record(position + kAttentionChunk, false)) : step.keys[b];
  }
  return step;
}

template <typename P, typename E>
void attend_steps(const TileView& view, const typename P::Query* q) {
  const int64_t oldest = view.oldest(0);
  const int64_t end = view.position(view.tile.rows - 1) + 1;
  const bool staged = view.tile.rows > Vec::kRegisterRows;
  for (int64_t start = oldest / kAttentionChunk * kAttentionChunk; start < end; start += kAttentionChunk) {
    const Step<E, true, E> step = find_blocks<E>(view, start, oldest, end);
    if (staged) {
      step_tile<P>(view, q, stage<P>(step, view.args.head_dim, view.layout, view.scratch), start);
    } else {
      step_tile<P>(view, q, step, start);
    }
  }
}

// Products P over a pool of elements E.
template <typename P, typename E>
void attend_tile(const AttentionArgs& args, const void* q, const AttentionTile& tile,
                 const TileScratch& layout, float* scratch) {
  const int64_t first_token = args.query_starts[tile.sequence];
  const int64_t tokens = args.query_starts[tile.sequence + 1] - first_token;
  const TileView view{args,
                      tile,
                      layout,
                      scratch,
                      args.num_heads / args.num_kv_heads,
                      first_token,
                      args.context_lengths[tile.sequence] - tokens};
  for (int64_t r = 0; r < tile.rows; ++r) {
    view.maximum()[r] = -INFINITY;
    view.total()[r] = 0.0f;
  }
  for (int64_t i = 0; i < tile.rows * layout.padded_dim; i += 16) {
    Vec::store(scratch + layout.sums + i, Vec::set(0.0f));
  }
  attend_steps<P, E>(view, static_cast<const typename P::Query*>(q));
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* sums = scratch + layout.sums + r * layout.padded_dim;
    float* out = args.output + view.head(r) * args.head_dim;
    const Vec total = Vec::set(view.total()[r]);
    for (int64_t i = 0; i < args.head_dim; i += 16) {
      const int width = args.head_dim - i < 16 ? static_cast<int>(args.head_dim - i) : 16;
      Vec::store_first(out + i, Vec::div(Vec::load(sums + i), total), width);
    }
  }
}

}  // namespace
}  // namespace fdq
