// Panel kernels over an Ops policy (linear_ops_*.h). Include after one of them.
//
// Few tokens: codes are decoded in registers and used at once. More tokens: a block of k is decoded into the
// first level cache and every token is multiplied with it. Decoding is exact, so both give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear_blocks.h"
#include "cpu/linear_scaled.h"

namespace fdq {
namespace {

constexpr int64_t kTokenChunk = 516;  // tokens whose totals are kept beside a decoded block

// Apart from what is done with the partial sums: in a loop too large to unroll, gcc would keep `sum` in
// memory and store it at every step.
template <int NP, int MT>
void finish_sums(const Sum (&sum)[MT][NP], Rows (&partial)[MT][NP]) {
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) partial[t][p] = sum[t][p].finish();
  }
}

// NP panels for MT tokens.
template <WeightFormat F, int NP, int MT>
void run_fused(const PanelJob& job, int64_t first, int64_t last, int64_t first_token) {
  constexpr int64_t kStepBytes = bytes_per_4k(F);
  const Decoder<F> decoder = make_decoder<F>(job);
  const auto* x_base = static_cast<const Element*>(job.x);
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  Rows total[MT][NP];
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) total[t][p] = Rows::set(0.0f);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    CodeBlock codes[NP];
    for (int p = 0; p < NP; ++p) codes[p] = find_codes(job, first + p, last, b, NP);
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
        prefetch(codes[p].ahead + at);
        Weights w0, w1;
        decoder.decode(codes[p].now + at, &w0, &w1);
        for (int t = 0; t < MT; ++t) {
          sum[t][p].multiply_add(w0, KPair::load(x[t] + k));
          sum[t][p].multiply_add(w1, KPair::load(x[t] + k + 2));
        }
      }
    }
    Rows partial[MT][NP];
    finish_sums<NP, MT>(sum, partial);
    for (int p = 0; p < NP; ++p) {
      const Rows scale = block_scale(job, job.panels[first + p], b / job.group_blocks);
      for (int t = 0; t < MT; ++t) {
        const int64_t token = first_token + t < job.tokens ? first_token + t : job.tokens - 1;
        total[t][p] = fold(job, partial[t][p], scale, b * job.block_k / kTile, token, total[t][p]);
      }
    }
  }
  for (int t = 0; t < MT && first_token + t < job.tokens; ++t) {
    for (int p = 0; p < NP; ++p) store_rows(job, job.panels[first + p], first_token + t, total[t][p]);
  }
}

template <WeightFormat F, int MT>
void run_fused_panels(const PanelJob& job, int64_t first, int64_t end, int64_t last, int64_t token) {
  constexpr int kPanels = fused_panels(MT);
  int64_t panel = first;
  for (; panel + kPanels <= end; panel += kPanels) run_fused<F, kPanels, MT>(job, panel, last, token);
  for (; panel < end; ++panel) run_fused<F, 1, MT>(job, panel, last, token);
}

// A few panels at a time, so that all tokens but the first eight find the codes in the cache.
template <WeightFormat F>
void run_few_tokens(const PanelJob& job, int64_t first, int64_t last) {
  constexpr int64_t kPanels = 4;
  for (int64_t panel = first; panel < last; panel += kPanels) {
    const int64_t end = panel + kPanels < last ? panel + kPanels : last;
    for (int64_t t = 0; t < job.tokens; t += kFusedTokens) {
      const int64_t tokens = job.tokens - t;
      if (tokens == 1) {
        run_fused_panels<F, 1>(job, panel, end, last, t);
      } else if (tokens == 2 || kFusedTokens == 2) {
        run_fused_panels<F, 2>(job, panel, end, last, t);
      } else if (tokens <= 4 || kFusedTokens == 4) {
        run_fused_panels<F, 4>(job, panel, end, last, t);
      } else {
        run_fused_panels<F, 8>(job, panel, end, last, t);
      }
    }
  }
}

// One block of k of a few panels, decoded.
struct DecodedBlock {
  const Element* w;    // see decode_block
  const Rows* scales;  // of each panel
  int64_t panel;       // the first
  int64_t length;
  int64_t x_group;
  bool first, last;  // of k
};

// NP panels times MT tokens, added to totals [MT][NP * 16]. Unrolled by request, or gcc would keep the sums
// in memory.
template <int NP, int MT>
void add_products(const PanelJob& job, const DecodedBlock& block, const Element* x, int64_t token,
                  float* totals) {
  const int64_t length = block.length;
  const Element* w = block.w;
  Sum sum[MT][NP];
#pragma GCC unroll 8
  for (int t = 0; t < MT; ++t) {
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) sum[t][p] = Sum::zero();
  }
  for (int64_t k = 0; k < length; k += 2) {
    Weights weights[NP];
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) weights[p] = Weights::load(w + p * kDecodedPanel + k * kPanelRows);
#pragma GCC unroll 8
    for (int t = 0; t < MT; ++t) {
      const KPair pair = KPair::load(x + t * length + k);
#pragma GCC unroll 8
      for (int p = 0; p < NP; ++p) sum[t][p].multiply_add(weights[p], pair);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < MT; ++t) {
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) {
      float* at = totals + (t * NP + p) * kPanelRows;
      const Rows total = block.first ? Rows::set(0.0f) : Rows::load(at);
      Rows::store(at, fold(job, sum[t][p].finish(), block.scales[p], block.x_group, token + t, total));
    }
  }
}

// The last block's products are the result: y, which nothing has touched yet, is fetched while they are
// computed.
template <int NP, int MT>
void run_tile(const PanelJob& job, const DecodedBlock& block, const Element* x, int64_t token,
              float* totals) {
  const Panel* panels = job.panels + block.panel;
  if (block.last) {
    for (int t = 0; t < MT; ++t) {
      for (int p = 0; p < NP; ++p) {
        __builtin_prefetch(job.y + (token + t) * job.n + panels[p].column, 1);
      }
    }
  }
  add_products<NP, MT>(job, block, x, token, totals);
  if (!block.last) return;
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) {
      store_rows(job, panels[p], token + t, Rows::load(totals + (t * NP + p) * kPanelRows));
    }
  }
}

template <int NP, int MT>
void run_tail(const PanelJob& job, const DecodedBlock& block, const Element* x, int64_t token, float* totals,
              int64_t tokens) {
  if constexpr (MT > 0) {
    if (tokens == MT) {
      run_tile<NP, MT>(job, block, x, token, totals);
    } else {
      run_tail<NP, MT - 1>(job, block, x, token, totals, tokens);
    }
  }
}

template <typename Blocks, int NP>
void run_decoded(const PanelJob& job, int64_t first, int64_t last, int64_t first_token, int64_t last_token) {
  alignas(64) Element w[NP * kDecodedPanel];
  alignas(64) float totals[kTokenChunk * NP * kPanelRows];
  const Blocks decoder(job);
  const int64_t tokens = last_token - first_token;
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    decoder.template decode<NP>(job, first, last, b, w);
    Rows scales[NP];
    for (int p = 0; p < NP; ++p) scales[p] = block_scale(job, job.panels[first + p], b / job.group_blocks);
    const DecodedBlock block{w, scales, first, length, b * job.block_k / kTile, b == 0, b + 1 == blocks};
    const Element* x =
        static_cast<const Element*>(job.x) + b * job.block_k * job.x_tokens + first_token * length;
    int64_t t = 0;
    for (; t + kTileTokens <= tokens; t += kTileTokens) {
      run_tile<NP, kTileTokens>(job, block, x + t * length, first_token + t, totals + t * NP * kPanelRows);
    }
    run_tail<NP, kTileTokens - 1>(job, block, x + t * length, first_token + t, totals + t * NP * kPanelRows,
                                  tokens - t);
  }
}

template <typename Blocks>
void run_decoded_panels(const PanelJob& job, int64_t first, int64_t last) {
  for (int64_t t = 0; t < job.tokens; t += kTokenChunk) {
    const int64_t end = t + kTokenChunk < job.tokens ? t + kTokenChunk : job.tokens;
    int64_t panel = first;
    for (; panel + kTilePanels <= last; panel += kTilePanels)
      run_decoded<Blocks, kTilePanels>(job, panel, last, t, end);
    for (; panel < last; ++panel) run_decoded<Blocks, 1>(job, panel, last, t, end);
  }
}

template <WeightFormat F>
void run_panels(const PanelJob& job, int64_t first, int64_t last) {
  if (job.tokens <= kMaxFusedTokens) return run_few_tokens<F>(job, first, last);
  run_decoded_panels<PlainBlocks<F>>(job, first, last);
}

void run_panels_of_format(const PanelJob& job, int64_t first, int64_t last) {
  switch (job.format) {
    case WeightFormat::kInt8:
      return run_panels<WeightFormat::kInt8>(job, first, last);
    case WeightFormat::kInt4:
      if (job.zero_points != nullptr)
        return run_decoded_panels<ScaledBlocks<WeightFormat::kInt4>>(job, first, last);
      return run_panels<WeightFormat::kInt4>(job, first, last);
    case WeightFormat::kNF4:
      return run_panels<WeightFormat::kNF4>(job, first, last);
    case WeightFormat::kE2M1:
      return run_decoded_panels<ScaledBlocks<WeightFormat::kE2M1>>(job, first, last);
    case WeightFormat::kInt2:
      return run_decoded_panels<ScaledBlocks<WeightFormat::kInt2>>(job, first, last);
    default:
      return run_panels<WeightFormat::kE4M3>(job, first, last);
  }
}

}  // namespace
}  // namespace fdq
