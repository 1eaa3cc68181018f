// Codes with narrow scales or zero points: a block of k is decoded into the first level cache with them
// applied, whatever the number of tokens. What is decoded is exact in Element. Include after linear_blocks.h.
//
// A policy has widen_block_scales and ScaledDecoder<F>: Factor(rows, bounded), what 16 rows' factors
// become, where `bounded` says that none is far from 1; and decode,
// which turns 32 bytes of codes into the Weights of kPairs pairs of k.
#pragma once

#include <cstdint>

#include "cpu/linear_blocks.h"

namespace fdq {
namespace {

inline Rows load_block_scales(const PanelJob& job, int64_t panel, int64_t block) {
  const int64_t at = (panel * job.row_blocks + block) * kPanelRows;
  return widen_block_scales(job.block_type, job.block_scales + at * block_scale_bytes(job.block_type));
}

inline Rows load_zero_points(const PanelJob& job, int64_t panel, int64_t group) {
  const int8_t* zeros = job.zero_points + (panel * job.groups + group) * kPanelRows;
  float factors[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r) factors[r] = static_cast<float>(zeros[r]);
  return Rows::load(factors);
}

// int4 has zero points, the other formats block scales.
template <WeightFormat F>
class ScaledBlocks {
 public:
  explicit ScaledBlocks(const PanelJob& /*job*/) {}

  // As PlainBlocks does.
  template <int NP>
  void decode(const PanelJob& job, int64_t first, int64_t last, int64_t block, Element* w) const {
    const int64_t length = block_length(job, block);
    const int64_t unit = F == WeightFormat::kInt4 ? length : job.block_columns;
    for (int p = 0; p < NP; ++p) {
      const CodeBlock codes = find_codes(job, first + p, last, block, NP);
      for (int64_t start = 0; start < length; start += unit) {
        const typename ScaledDecoder<F>::Factor factor =
            load_factor(job, first + p, block * job.block_k + start);
        const int64_t end = start + unit < length ? start + unit : length;
        decode_run(codes, factor, start, end, w + p * kDecodedPanel);
      }
    }
  }

 private:
  static constexpr int64_t kStep = 2 * ScaledDecoder<F>::kPairs;
  static_assert(kStep * kPanelRows == 32 * codes_per_byte(F), "a step is 32 bytes of codes");

  static typename ScaledDecoder<F>::Factor load_factor(const PanelJob& job, int64_t panel, int64_t k) {
    using Factor = typename ScaledDecoder<F>::Factor;
    if constexpr (F == WeightFormat::kInt4)
      return Factor(load_zero_points(job, panel, k / job.group_k), true);
    // Past k there are zeros of x only, and no scales.
    const int64_t at = k / job.block_columns;
    const int64_t block = at < job.row_blocks ? at : job.row_blocks - 1;
    return Factor(load_block_scales(job, panel, block), job.block_type == BlockScaleType::kE4M3);
  }

  void decode_run(const CodeBlock& codes, const typename ScaledDecoder<F>::Factor& factor, int64_t start,
                  int64_t end, Element* out) const {
    for (int64_t k = start; k < end; k += kStep) {
      const int64_t at = k / kStep * 32;
      prefetch(codes.ahead + at);
      Weights weights[ScaledDecoder<F>::kPairs];
      decoder_.decode(codes.now + at, factor, weights);
      for (int64_t q = 0; q < ScaledDecoder<F>::kPairs; ++q) weights[q].store(out + (k + 2 * q) * kPanelRows);
    }
  }

  ScaledDecoder<F> decoder_;
};

}  // namespace
}  // namespace fdq
