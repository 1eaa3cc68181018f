// What kernels over panels have in common. Include after a policy that has Element, Rows, Weights and
// Decoder.
#pragma once

#include <cstdint>

#include "cpu/linear.h"

namespace fdq {
namespace {

// Elements between decoded panels: a cache line more than a panel, or all panels of a block would share cache
// sets.
constexpr int64_t kDecodedPanel = kMaxBlockK * kPanelRows + 64 / static_cast<int64_t>(sizeof(Element));

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
    scale = Rows::mul(scale, Rows::set(job.x_scales[x_group * job.x_scale_stride + token]));
  }
  return Rows::fma(partial, scale, total);
}

// Codes of one block of a panel, and those wanted a little later: further on in the panel, or in the one
// `step` panels on.
struct CodeBlock {
  const uint8_t* now;
  const uint8_t* ahead;
};
constexpr int64_t kAheadBytes = 2048;

inline CodeBlock find_codes(const PanelJob& job, int64_t panel, int64_t last, int64_t block, int step) {
  const int64_t offset = block * job.block_k / 4 * bytes_per_4k(job.format);
  const uint8_t* codes = job.codes + panel * job.panel_bytes;
  const int64_t ahead = offset + kAheadBytes;
  if (ahead < job.panel_bytes) return {codes + offset, codes + ahead};
  const int64_t next = ahead - job.panel_bytes;
  const bool exists = panel + step < last && next < job.panel_bytes;
  return {codes + offset, exists ? codes + step * job.panel_bytes + next : codes + offset};
}

template <WeightFormat F>
Decoder<F> make_decoder(const PanelJob& job) {
  if constexpr (F == WeightFormat::kNF4) {
    return Decoder<F>(job.table);
  } else {
    (void)job;
    return Decoder<F>();
  }
}

// A block of panels decoded. ScaledBlocks of linear_scaled.h is the same for formats with narrow scales.
template <WeightFormat F>
class PlainBlocks {
 public:
  explicit PlainBlocks(const PanelJob& job) : decoder_(make_decoder<F>(job)) {}

  // NP panels' codes of one block to w [NP] x [kMaxBlockK / 2][16 rows][2 k], kDecodedPanel apart. What is
  // decoded next is prefetched.
  template <int NP>
  void decode(const PanelJob& job, int64_t first, int64_t last, int64_t block, Element* w) const {
    constexpr int64_t kStepBytes = bytes_per_4k(F);
    const int64_t length = block_length(job, block);
    for (int p = 0; p < NP; ++p) {
      const CodeBlock codes = find_codes(job, first + p, last, block, NP);
      Element* out = w + p * kDecodedPanel;
      for (int64_t k = 0; k < length; k += 4) {
        const int64_t at = k / 4 * kStepBytes;
        prefetch(codes.ahead + at);
        Weights w0, w1;
        decoder_.decode(codes.now + at, &w0, &w1);
        w0.store(out + k * kPanelRows);
        w1.store(out + (k + 2) * kPanelRows);
      }
    }
  }

 private:
  Decoder<F> decoder_;
};

}  // namespace
}  // namespace fdq
