// Panel kernels over an Ops policy (linear_ops_*.h). Include after one of them.
//
// Few tokens: codes are decoded in registers and used at once. More tokens: a block of k is decoded into the first
// level cache and every token is multiplied with it. Decoding is exact, so both give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear.h"

namespace fdq {
namespace {

constexpr int64_t kMaxBlockK = 128;
constexpr int64_t kTokenChunk = 240;  // tokens whose totals are kept beside a decoded block

inline Rows block_scale(const PanelJob& job, const Panel& panel, int64_t group) {
  return job.tile_scales ? Rows::set(panel.scales[group]) : Rows::load(panel.scales + group * kPanelRows);
}

inline void store_rows(const PanelJob& job, const Panel& panel, int64_t token, Rows total) {
  float* y = job.y + token * job.n + panel.column;
  if (panel.rows == kPanelRows) {
    if (job.bias != nullptr) total = Rows::add(total, Rows::load(job.bias + panel.column));
    Rows::store(y, total);
    return;
  }
  float values[kPanelRows];
  Rows::store(values, total);
  for (int r = 0; r < panel.rows; ++r) {
    y[r] = job.bias != nullptr ? values[r] + job.bias[panel.column + r] : values[r];
  }
}

inline int64_t block_length(const PanelJob& job, int64_t block) {
  const int64_t left = job.k_end - block * job.block_k;
  return left < job.block_k ? left : job.block_k;
}

inline Rows fold(const PanelJob& job, Rows partial, Rows scale, int64_t x_group, int64_t token, Rows total) {
  if (job.x_scales != nullptr) {
    scale = Rows::mul(scale, Rows::set(job.x_scales[x_group * job.tokens + token]));
  }
  return Rows::fma(partial, scale, total);
}

// NP panels for MT tokens. The next block of each panel, or the first of the panel NP further on, is prefetched.
template <WeightFormat F, int NP, int MT>
void run_fused(const PanelJob& job, int64_t first, int64_t last, int64_t first_token) {
  constexpr int64_t kStepBytes = F == WeightFormat::kInt4 ? 32 : 64;
  const Decoder<F> decoder;
  const auto* x_base = static_cast<const Element*>(job.x);
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  Rows total[MT][NP];
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) total[t][p] = Rows::set(0.0f);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    const int64_t offset = b * job.block_k / 4 * kStepBytes;
    const uint8_t* codes[NP];
    const uint8_t* ahead[NP];
    for (int p = 0; p < NP; ++p) {
      codes[p] = job.codes + (first + p) * job.panel_bytes + offset;
      const bool same = b + 1 < blocks || first + p + NP >= last;
      ahead[p] = same ? codes[p] + (b + 1 < blocks ? length / 4 * kStepBytes : 0)
                      : job.codes + (first + p + NP) * job.panel_bytes;
    }
    const Element* x[MT];
    for (int t = 0; t < MT; ++t) {
      // Past the last token the last one is computed again and dropped.
      const int64_t token = first_token + t < job.tokens ? first_token + t : job.tokens - 1;
      x[t] = x_base + b * job.block_k * job.x_tokens + token * length;
    }
    Sum sum[MT][NP];
    for (int t = 0; t < MT; ++t) {
      for (int p = 0; p < NP; ++p) sum[t][p] = Sum::zero();
    }
    for (int64_t k = 0; k < length; k += 4) {
      const int64_t at = k / 4 * kStepBytes;
      for (int p = 0; p < NP; ++p) {
        prefetch(ahead[p] + at);
        Weights w0, w1;
        decoder.decode(codes[p] + at, &w0, &w1);
        for (int t = 0; t < MT; ++t) {
          sum[t][p].multiply_add(w0, KPair::load(x[t] + k));
          sum[t][p].multiply_add(w1, KPair::load(x[t] + k + 2));
        }
      }
    }
    for (int p = 0; p < NP; ++p) {
      const Rows scale = block_scale(job, job.panels[first + p], b / job.group_blocks);
      for (int t = 0; t < MT; ++t) {
        const int64_t token = first_token + t < job.tokens ? first_token + t : job.tokens - 1;
        total[t][p] = fold(job, sum[t][p].finish(), scale, b * job.block_k / kTile, token, total[t][p]);
      }
    }
  }
  for (int t = 0; t < MT && first_token + t < job.tokens; ++t) {
    for (int p = 0; p < NP; ++p) store_rows(job, job.panels[first + p], first_token + t, total[t][p]);
  }
}

template <WeightFormat F, int MT>
void run_fused_panels(const PanelJob& job, int64_t first, int64_t last) {
  constexpr int kPanels = fused_panels(MT);
  int64_t panel = first;
  for (; panel + kPanels <= last; panel += kPanels) run_fused<F, kPanels, MT>(job, panel, last, 0);
  for (; panel < last; ++panel) run_fused<F, 1, MT>(job, panel, last, 0);
}

// One block of NP decoded panels times MT tokens, added to totals [MT][NP * 16].
template <int NP, int MT>
void run_tile(const PanelJob& job, const Element* w, const Element* x, int64_t length, const Rows* scales,
              int64_t x_group, int64_t token, float* totals) {
  Sum sum[MT][NP];
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) sum[t][p] = Sum::zero();
  }
  for (int64_t k = 0; k < length; k += 2) {
    Weights weights[NP];
    for (int p = 0; p < NP; ++p) weights[p] = Weights::load(w + (p * kMaxBlockK + k) * kPanelRows);
    for (int t = 0; t < MT; ++t) {
      const KPair pair = KPair::load(x + t * length + k);
      for (int p = 0; p < NP; ++p) sum[t][p].multiply_add(weights[p], pair);
    }
  }
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) {
      float* total = totals + (t * NP + p) * kPanelRows;
      Rows::store(total, fold(job, sum[t][p].finish(), scales[p], x_group, token + t, Rows::load(total)));
    }
  }
}

template <int NP, int MT>
void run_tail(const PanelJob& job, const Element* w, const Element* x, int64_t length, const Rows* scales,
              int64_t x_group, int64_t token, float* totals, int64_t tokens) {
  if constexpr (MT > 0) {
    if (tokens == MT) {
      run_tile<NP, MT>(job, w, x, length, scales, x_group, token, totals);
    } else {
      run_tail<NP, MT - 1>(job, w, x, length, scales, x_group, token, totals, tokens);
    }
  }
}

template <WeightFormat F, int NP>
void decode_block(const PanelJob& job, int64_t first, int64_t k, int64_t length, Element* w) {
  constexpr int64_t kStepBytes = F == WeightFormat::kInt4 ? 32 : 64;
  const Decoder<F> decoder;
  for (int p = 0; p < NP; ++p) {
    const uint8_t* codes = job.codes + (first + p) * job.panel_bytes + k / 4 * kStepBytes;
    Element* out = w + p * kMaxBlockK * kPanelRows;
    for (int64_t i = 0; i < length; i += 4) {
      Weights w0, w1;
      decoder.decode(codes + i / 4 * kStepBytes, &w0, &w1);
      w0.store(out + i * kPanelRows);
      w1.store(out + (i + 2) * kPanelRows);
    }
  }
}

template <WeightFormat F, int NP>
void run_decoded(const PanelJob& job, int64_t first, int64_t first_token, int64_t last_token) {
  alignas(64) Element w[NP * kMaxBlockK * kPanelRows];
  alignas(64) float totals[kTokenChunk * NP * kPanelRows];
  const int64_t tokens = last_token - first_token;
  std::memset(totals, 0, static_cast<size_t>(tokens * NP * kPanelRows) * sizeof(float));
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    decode_block<F, NP>(job, first, b * job.block_k, length, w);
    Rows scales[NP];
    for (int p = 0; p < NP; ++p) scales[p] = block_scale(job, job.panels[first + p], b / job.group_blocks);
    const Element* x =
        static_cast<const Element*>(job.x) + b * job.block_k * job.x_tokens + first_token * length;
    const int64_t x_group = b * job.block_k / kTile;
    int64_t t = 0;
    for (; t + kTileTokens <= tokens; t += kTileTokens) {
      run_tile<NP, kTileTokens>(job, w, x + t * length, length, scales, x_group, first_token + t,
                                totals + t * NP * kPanelRows);
    }
    run_tail<NP, kTileTokens - 1>(job, w, x + t * length, length, scales, x_group, first_token + t,
                                  totals + t * NP * kPanelRows, tokens - t);
  }
  for (int64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < NP; ++p) {
      store_rows(job, job.panels[first + p], first_token + t, Rows::load(totals + (t * NP + p) * kPanelRows));
    }
  }
}

template <WeightFormat F>
void run_panels(const PanelJob& job, int64_t first, int64_t last) {
  if (job.tokens <= kMaxFusedTokens) {
    switch (job.tokens) {
      case 1: return run_fused_panels<F, 1>(job, first, last);
      case 2: return run_fused_panels<F, 2>(job, first, last);
      case 3:
      case 4: return run_fused_panels<F, 4>(job, first, last);
      default: return run_fused_panels<F, 8>(job, first, last);
    }
  }
  for (int64_t t = 0; t < job.tokens; t += kTokenChunk) {
    const int64_t end = t + kTokenChunk < job.tokens ? t + kTokenChunk : job.tokens;
    int64_t panel = first;
    for (; panel + kTilePanels <= last; panel += kTilePanels) run_decoded<F, kTilePanels>(job, panel, t, end);
    for (; panel < last; ++panel) run_decoded<F, 1>(job, panel, t, end);
  }
}

void run_panels_of_format(const PanelJob& job, int64_t first, int64_t last) {
  if (job.format == WeightFormat::kInt8) return run_panels<WeightFormat::kInt8>(job, first, last);
  if (job.format == WeightFormat::kInt4) return run_panels<WeightFormat::kInt4>(job, first, last);
  run_panels<WeightFormat::kE4M3>(job, first, last);
}

}  // namespace
}  // namespace fdq
