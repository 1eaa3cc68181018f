// Panels of int8 or int4 codes times int8 activations, in integers: four k of 16 rows in one AVX-512
// register, multiplied by VNNI. Include after a policy that has Element, Weights and Rows.
//
// The instruction multiplies unsigned by signed bytes: codes are raised by kRaise to be unsigned, and the sum
// over a block starts at -kRaise * sum(x), PanelJob::x_offsets. The sum of a block is an integer below 2^24,
// so its float32 is what the kernels that multiply floats get: results are the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear_blocks.h"

namespace fdq {
namespace {

constexpr int64_t kQuadTokenChunk = 516;  // tokens whose totals are kept beside a decoded block
constexpr int64_t kMaxFusedQuadTokens = 40;
constexpr int kFusedQuadTokens = 8;
constexpr int64_t kQuadBytes = 4 * kPanelRows;
constexpr int64_t kQuadPanel = kMaxBlockK * kPanelRows + 64;  // apart, as kDecodedPanel is
constexpr int kQuadPanels = 4;
constexpr int kQuadTokens = 6;

// [16 rows][4 k] raised codes from those of four k of a panel.
template <WeightFormat F>
__m512i decode_quad(const uint8_t* codes) {
  if constexpr (F == WeightFormat::kInt4) {
    // A pair of bytes has k, k + 1 in its low nibbles and k + 2, k + 3 in its high ones.
    const __m512i pairs = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)));
    const __m512i spread = _mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 12));
    constexpr int kAndThenXor = 0x6a;  // (a & b) ^ c
    return _mm512_ternarylogic_epi32(spread, _mm512_set1_epi8(15), _mm512_set1_epi8(8), kAndThenXor);
  } else {
    alignas(64) static constexpr uint16_t kOrder[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i quads = _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), _mm512_loadu_si512(codes));
    return _mm512_xor_si512(quads, _mm512_set1_epi8(static_cast<char>(0x80)));
  }
}

inline __m512i load_x(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, sizeof four);
  return _mm512_set1_epi32(four);
}

struct QuadSum {
  __m512i v;

  static QuadSum first(const PanelJob& job, int64_t block, int64_t token) {
    return {_mm512_set1_epi32(job.x_offsets[block * job.x_tokens + token])};
  }
  // By hand: around the intrinsic gcc 12 copies every sum and stores it at every step.
  void multiply_add(__m512i weights, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(v) : "v"(weights), "v"(x));
  }
  Rows finish() const { return {_mm512_cvtepi32_ps(v)}; }
};

// NP panels for MT tokens, decoded in registers and used at once.
template <WeightFormat F, int NP, int MT>
void run_fused_quads(const PanelJob& job, int64_t first, int64_t last, int64_t first_token) {
  const auto* x_base = static_cast<const int8_t*>(job.x);
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  Rows total[MT][NP];
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) total[t][p] = Rows::set(0.0f);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    CodeBlock codes[NP];
    for (int p = 0; p < NP; ++p) codes[p] = find_codes(job, first + p, last, b, NP);
    const int8_t* x = x_base + b * job.block_k * job.x_tokens + first_token * length;
    QuadSum sum[MT][NP];
#pragma GCC unroll 8
    for (int t = 0; t < MT; ++t) {
#pragma GCC unroll 8
      for (int p = 0; p < NP; ++p) sum[t][p] = QuadSum::first(job, b, first_token + t);
    }
    for (int64_t k = 0; k < length; k += 4) {
      const int64_t at = k / 4 * bytes_per_4k(F);
      __m512i weights[NP];
#pragma GCC unroll 8
      for (int p = 0; p < NP; ++p) {
        prefetch(codes[p].ahead + at);
        weights[p] = decode_quad<F>(codes[p].now + at);
      }
#pragma GCC unroll 8
      for (int t = 0; t < MT; ++t) {
        const __m512i values = load_x(x + t * length + k);
#pragma GCC unroll 8
        for (int p = 0; p < NP; ++p) sum[t][p].multiply_add(weights[p], values);
      }
    }
    for (int p = 0; p < NP; ++p) {
      const Rows scale = block_scale(job, job.panels[first + p], b / job.group_blocks);
      for (int t = 0; t < MT; ++t) {
        const Rows partial = sum[t][p].finish();
        total[t][p] = fold(job, partial, scale, 0, first_token + t, total[t][p]);
      }
    }
  }
  for (int t = 0; t < MT; ++t) {
    for (int p = 0; p < NP; ++p) store_rows(job, job.panels[first + p], first_token + t, total[t][p]);
  }
}

template <WeightFormat F, int MT>
void run_fused_quad_panels(const PanelJob& job, int64_t first, int64_t end, int64_t last, int64_t token,
                           int64_t tokens) {
  if constexpr (MT > 0) {
    if (tokens != MT) return run_fused_quad_panels<F, MT - 1>(job, first, end, last, token, tokens);
    constexpr int kPanels = MT <= 4 ? 4 : 2;
    int64_t panel = first;
    for (; panel + kPanels <= end; panel += kPanels) run_fused_quads<F, kPanels, MT>(job, panel, last, token);
    for (; panel < end; ++panel) run_fused_quads<F, 1, MT>(job, panel, last, token);
  }
}

// A few panels at a time, so that all tokens but the first eight find the codes in the cache.
template <WeightFormat F>
void run_few_quad_tokens(const PanelJob& job, int64_t first, int64_t last) {
  for (int64_t panel = first; panel < last; panel += kQuadPanels) {
    const int64_t end = panel + kQuadPanels < last ? panel + kQuadPanels : last;
    for (int64_t t = 0; t < job.tokens; t += kFusedQuadTokens) {
      const int64_t tokens = job.tokens - t < kFusedQuadTokens ? job.tokens - t : kFusedQuadTokens;
      run_fused_quad_panels<F, kFusedQuadTokens>(job, panel, end, last, t, tokens);
    }
  }
}

// A block of k of a few panels, decoded.
struct QuadBlock {
  const uint8_t* w;  // [panels][length / 4][16 rows][4 k], kQuadPanel apart
  const Rows* scales;
  int64_t index, panel, length;
  bool first, last;  // of k
};

// NP panels times MT tokens, added to totals [MT][NP * 16]. Unrolled by request, and apart from the storing
// of rows, or gcc would keep the sums in memory.
template <int NP, int MT>
void add_quad_products(const PanelJob& job, const QuadBlock& block, const int8_t* x, int64_t token,
                       float* totals) {
  const int64_t length = block.length;
  QuadSum sum[MT][NP];
#pragma GCC unroll 8
  for (int t = 0; t < MT; ++t) {
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) sum[t][p] = QuadSum::first(job, block.index, token + t);
  }
  for (int64_t k = 0; k < length; k += 4) {
    __m512i weights[NP];
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) weights[p] = _mm512_load_si512(block.w + p * kQuadPanel + k * kPanelRows);
#pragma GCC unroll 8
    for (int t = 0; t < MT; ++t) {
      const __m512i values = load_x(x + t * length + k);
#pragma GCC unroll 8
      for (int p = 0; p < NP; ++p) sum[t][p].multiply_add(weights[p], values);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < MT; ++t) {
#pragma GCC unroll 8
    for (int p = 0; p < NP; ++p) {
      float* at = totals + (t * NP + p) * kPanelRows;
      const Rows partial = sum[t][p].finish();
      const Rows total = block.first ? Rows::set(0.0f) : Rows::load(at);
      Rows::store(at, fold(job, partial, block.scales[p], 0, token + t, total));
    }
  }
}

// The last block's products are the result: y is fetched while they are computed.
template <int NP, int MT>
void run_quad_tile(const PanelJob& job, const QuadBlock& block, const int8_t* x, int64_t token,
                   float* totals) {
  const Panel* panels = job.panels + block.panel;
  for (int i = 0; i < MT * NP && block.last; ++i) {
    __builtin_prefetch(job.y + (token + i / NP) * job.n + panels[i % NP].column, 1);
  }
  add_quad_products<NP, MT>(job, block, x, token, totals);
  for (int i = 0; i < MT * NP && block.last; ++i) {
    store_rows(job, panels[i % NP], token + i / NP, Rows::load(totals + i * kPanelRows));
  }
}

template <int NP, int MT>
void run_quad_tail(const PanelJob& job, const QuadBlock& block, const int8_t* x, int64_t token, float* totals,
                   int64_t tokens) {
  if constexpr (MT > 0) {
    if (tokens == MT) {
      run_quad_tile<NP, MT>(job, block, x, token, totals);
    } else {
      run_quad_tail<NP, MT - 1>(job, block, x, token, totals, tokens);
    }
  }
}

template <WeightFormat F, int NP>
void run_decoded_quads(const PanelJob& job, int64_t first, int64_t last, int64_t first_token,
                       int64_t last_token) {
  alignas(64) uint8_t w[NP * kQuadPanel];
  alignas(64) float totals[kQuadTokenChunk * NP * kPanelRows];
  const int64_t tokens = last_token - first_token;
  const int64_t blocks = ceil_div(job.k_end, job.block_k);
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t length = block_length(job, b);
    Rows scales[NP];
    for (int p = 0; p < NP; ++p) {
      const CodeBlock codes = find_codes(job, first + p, last, b, NP);
      for (int64_t k = 0; k < length; k += 4) {
        const int64_t at = k / 4 * bytes_per_4k(F);
        prefetch(codes.ahead + at);
        _mm512_store_si512(w + p * kQuadPanel + k / 4 * kQuadBytes, decode_quad<F>(codes.now + at));
      }
      scales[p] = block_scale(job, job.panels[first + p], b / job.group_blocks);
    }
    const QuadBlock block{w, scales, b, first, length, b == 0, b + 1 == blocks};
    const int8_t* x =
        static_cast<const int8_t*>(job.x) + b * job.block_k * job.x_tokens + first_token * length;
    int64_t t = 0;
    for (; t + kQuadTokens <= tokens; t += kQuadTokens) {
      run_quad_tile<NP, kQuadTokens>(job, block, x + t * length, first_token + t,
                                     totals + t * NP * kPanelRows);
    }
    run_quad_tail<NP, kQuadTokens - 1>(job, block, x + t * length, first_token + t,
                                       totals + t * NP * kPanelRows, tokens - t);
  }
}

template <WeightFormat F>
void run_quads(const PanelJob& job, int64_t first, int64_t last) {
  if (job.tokens <= kMaxFusedQuadTokens) return run_few_quad_tokens<F>(job, first, last);
  for (int64_t t = 0; t < job.tokens; t += kQuadTokenChunk) {
    const int64_t end = t + kQuadTokenChunk < job.tokens ? t + kQuadTokenChunk : job.tokens;
    int64_t panel = first;
    for (; panel + kQuadPanels <= last; panel += kQuadPanels)
      run_decoded_quads<F, kQuadPanels>(job, panel, last, t, end);
    for (; panel < last; ++panel) run_decoded_quads<F, 1>(job, panel, last, t, end);
  }
}

void run_quads_of_format(const PanelJob& job, int64_t first, int64_t last) {
  if (job.format == WeightFormat::kInt8) return run_quads<WeightFormat::kInt8>(job, first, last);
  run_quads<WeightFormat::kInt4>(job, first, last);
}

}  // namespace
}  // namespace fdq
