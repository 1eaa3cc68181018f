// Matrix tiles (AMX): C [16][16] float32 += A [16][32] bfloat16 times B [16 pairs of k][16][2]. Include after
// a policy that has Tiles, Element, Rows, Weights and Decoder.
//
// Panel formats: A is 16 tokens of x, B a decoded panel. As-stored rows: A is 16 rows as they lie in memory,
// B 16 tokens of x in pairs of k. A tile is computed the same way whatever lies in its other rows and
// columns.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear_blocks.h"
#include "cpu/linear_scaled.h"

namespace fdq {
namespace {

constexpr int64_t kTileSide = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileTokenChunk = 256;  // tokens whose totals are kept beside a decoded block

// Registers: C of a 2 x 2 block of tiles is 0 .. 3, A is 4 and 5, B is 6 and 7.
template <int NA, int NB>
void zero_tiles() {
  Tiles::zero<0>();
  if constexpr (NB == 2) Tiles::zero<1>();
  if constexpr (NA == 2) Tiles::zero<2>();
  if constexpr (NA == 2 && NB == 2) Tiles::zero<3>();
}

template <int NA, int NB>
void multiply_tiles() {
  Tiles::multiply<0, 4, 6>();
  if constexpr (NB == 2) Tiles::multiply<1, 4, 7>();
  if constexpr (NA == 2) Tiles::multiply<2, 5, 6>();
  if constexpr (NA == 2 && NB == 2) Tiles::multiply<3, 5, 7>();
}

// c[a * NB + b] is tile (a, b), row-major.
using TileValues = float[kTileSide * kTileSide];

template <int NA, int NB>
void store_tiles(TileValues* c) {
  constexpr int64_t kStride = kTileSide * static_cast<int64_t>(sizeof(float));
  Tiles::store<0>(c[0], kStride);
  if constexpr (NB == 2) Tiles::store<1>(c[1], kStride);
  if constexpr (NA == 2) Tiles::store<2>(c[NB], kStride);
  if constexpr (NA == 2 && NB == 2) Tiles::store<3>(c[3], kStride);
}

// One block of NP panels times 16 * NT tokens, folded into totals [tokens][NP][16].
template <int NP, int NT>
void run_panel_tiles(const PanelJob& job, const Element* w, const Element* x, int64_t length,
                     const Rows* scales, int64_t x_group, int64_t token, float* totals) {
  constexpr int64_t kPairBytes = 2 * kPanelRows * static_cast<int64_t>(sizeof(Element));
  const int64_t x_stride = length * static_cast<int64_t>(sizeof(Element));
  zero_tiles<NT, NP>();
  for (int64_t k = 0; k < length; k += kTileK) {
    Tiles::load<4>(x + k, x_stride);
    if constexpr (NT == 2) Tiles::load<5>(x + kTileSide * length + k, x_stride);
    Tiles::load<6>(w + k * kPanelRows, kPairBytes);
    if constexpr (NP == 2) Tiles::load<7>(w + kDecodedPanel + k * kPanelRows, kPairBytes);
    multiply_tiles<NT, NP>();
  }
  alignas(64) TileValues c[NT * NP];
  store_tiles<NT, NP>(c);
  for (int64_t t = 0; t < NT * kTileSide && token + t < job.tokens; ++t) {
    for (int p = 0; p < NP; ++p) {
      float* total = totals + (t * NP + p) * kPanelRows;
      const Rows partial = Rows::load(c[t / kTileSide * NP + p] + t % kTileSide * kTileSide);
      Rows::store(total, fold(job, partial, scales[p], x_group, token + t, Rows::load(total)));
    }
  }
}

template <typename Blocks, int NP>
void run_panel_chunk(const PanelJob& job, int64_t first, int64_t last, int64_t first_token,
                     int64_t last_token) {
  alignas(64) Element w[NP * kDecodedPanel];
  alignas(64) float totals[kTileTokenChunk * NP * kPanelRows];
  const Blocks decoder(job);
  const int64_t tokens = last_token - first_token;
  std::memset(totals, 0, static_cast<size_t>(tokens * NP * kPanelRows) * sizeof(float));
  for (int64_t b = 0; b * job.block_k < job.k_end; ++b) {
    const int64_t length = block_length(job, b);
    decoder.template decode<NP>(job, first, last, b, w);
    Rows scales[NP];
    for (int p = 0; p < NP; ++p) scales[p] = block_scale(job, job.panels[first + p], b / job.group_blocks);
    const Element* x =
        static_cast<const Element*>(job.x) + b * job.block_k * job.x_tokens + first_token * length;
    const int64_t x_group = b * job.block_k / kTile;
    int64_t t = 0;
    for (; tokens - t > kTileSide; t += 2 * kTileSide) {
      run_panel_tiles<NP, 2>(job, w, x + t * length, length, scales, x_group, first_token + t,
                             totals + t * NP * kPanelRows);
    }
    if (t < tokens) {
      run_panel_tiles<NP, 1>(job, w, x + t * length, length, scales, x_group, first_token + t,
                             totals + t * NP * kPanelRows);
    }
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < NP; ++p) {
      store_rows(job, job.panels[first + p], first_token + t, Rows::load(totals + (t * NP + p) * kPanelRows));
    }
  }
}

template <typename Blocks>
void run_tile_panels_of(const PanelJob& job, int64_t first, int64_t last) {
  for (int64_t t = 0; t < job.tokens; t += kTileTokenChunk) {
    const int64_t end = t + kTileTokenChunk < job.tokens ? t + kTileTokenChunk : job.tokens;
    int64_t panel = first;
    for (; panel + 2 <= last; panel += 2) run_panel_chunk<Blocks, 2>(job, panel, last, t, end);
    if (panel < last) run_panel_chunk<Blocks, 1>(job, panel, last, t, end);
  }
}

void run_tile_panels_of_format(const PanelJob& job, int64_t first, int64_t last) {
  switch (job.format) {
    case WeightFormat::kInt8:
      return run_tile_panels_of<PlainBlocks<WeightFormat::kInt8>>(job, first, last);
    case WeightFormat::kInt4:
      if (job.zero_points != nullptr) {
        return run_tile_panels_of<ScaledBlocks<WeightFormat::kInt4>>(job, first, last);
      }
      return run_tile_panels_of<PlainBlocks<WeightFormat::kInt4>>(job, first, last);
    case WeightFormat::kNF4:
      return run_tile_panels_of<PlainBlocks<WeightFormat::kNF4>>(job, first, last);
    case WeightFormat::kE2M1:
      return run_tile_panels_of<ScaledBlocks<WeightFormat::kE2M1>>(job, first, last);
    case WeightFormat::kInt2:
      return run_tile_panels_of<ScaledBlocks<WeightFormat::kInt2>>(job, first, last);
    default:
      return run_tile_panels_of<PlainBlocks<WeightFormat::kE4M3>>(job, first, last);
  }
}

void run_tile_panels(const PanelJob& job, int64_t first, int64_t last) {
  Tiles::configure();
  run_tile_panels_of_format(job, first, last);
  Tiles::release();
}

// Rows of an as-stored bfloat16 matrix as tile A. A tile that would reach past the last row or past k is
// copied first: nothing behind the matrix may be read.
class RowSource {
 public:
  RowSource(const RowJob& job, int64_t row, int64_t last)
      : base_(job.weight + row * job.k * 2),
        k_(job.k),
        rows_(last - row < kTileSide ? last - row : kTileSide) {}

  template <int T>
  void load(int64_t k) {
    const int64_t count = k_ - k < kTileK ? k_ - k : kTileK;
    if (rows_ == kTileSide && count == kTileK) return Tiles::load<T>(base_ + k * 2, k_ * 2);
    std::memset(copy_, 0, sizeof copy_);
    for (int64_t r = 0; r < rows_; ++r)
      std::memcpy(copy_[r], base_ + (r * k_ + k) * 2, static_cast<size_t>(count * 2));
    Tiles::load<T>(copy_, sizeof copy_[0]);
  }

 private:
  const uint8_t* base_;
  int64_t k_, rows_;
  alignas(64) uint16_t copy_[kTileSide][kTileK];
};

// 16 * NR rows from `row`, those before `last` stored, times 16 * NT tokens.
template <int NR, int NT>
void run_row_tiles(const RowJob& job, int64_t row, int64_t last, int64_t token) {
  constexpr int64_t kPairBytes = 2 * kTileSide * static_cast<int64_t>(sizeof(Element));
  RowSource first(job, row, last), second(job, NR == 2 ? row + kTileSide : row, last);
  const Element* x = static_cast<const Element*>(job.x) + token * job.x_stride;
  zero_tiles<NR, NT>();
  for (int64_t k = 0; k < job.x_stride; k += kTileK) {
    first.load<4>(k);
    if constexpr (NR == 2) second.load<5>(k);
    Tiles::load<6>(x + k * kTileSide, kPairBytes);
    if constexpr (NT == 2) Tiles::load<7>(x + (job.x_stride + k) * kTileSide, kPairBytes);
    multiply_tiles<NR, NT>();
  }
  alignas(64) TileValues c[NR * NT];
  store_tiles<NR, NT>(c);
  const int64_t rows = last - row < NR * kTileSide ? last - row : NR * kTileSide;
  for (int64_t t = 0; t < NT * kTileSide && token + t < job.tokens; ++t) {
    float* y = job.y + (token + t) * job.n + row;
    for (int64_t r = 0; r < rows; ++r) {
      const float value = c[r / kTileSide * NT + t / kTileSide][r % kTileSide * kTileSide + t % kTileSide];
      y[r] = job.bias != nullptr ? value + job.bias[row + r] : value;
    }
  }
}

template <int NR>
void run_row_tiles_of_tokens(const RowJob& job, int64_t row, int64_t last) {
  int64_t token = 0;
  for (; job.tokens - token > kTileSide; token += 2 * kTileSide) run_row_tiles<NR, 2>(job, row, last, token);
  if (token < job.tokens) run_row_tiles<NR, 1>(job, row, last, token);
}

void run_tile_rows(const RowJob& job, int64_t first, int64_t last) {
  Tiles::configure();
  int64_t row = first;
  for (; last - row > kTileSide; row += 2 * kTileSide) run_row_tiles_of_tokens<2>(job, row, last);
  if (row < last) run_row_tiles_of_tokens<1>(job, row, last);
  Tiles::release();
}

}  // namespace
}  // namespace fdq
