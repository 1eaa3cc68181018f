// Where the parts of a quantized matrix lie: panels of formats.h, or canonical order.
#pragma once

#include <cstdint>

#include "cpu/number_formats.h"
#include "fdq/ops.h"

namespace fdq {
namespace {

class QuantizeTarget {
 public:
  explicit QuantizeTarget(const QuantizeArgs& args)
      : args_(args),
        groups_(num_groups(args.k, args.group_k)),
        blocks_(num_blocks(args.k, args.block_k)),
        row_bytes_(canonical_row_bytes(args.format, args.k, args.block_k)) {}

  int64_t groups() const { return groups_; }
  int64_t blocks() const { return blocks_; }

  // The float32 scale of a row and a group of its columns.
  float* scale(int64_t row, int64_t group) const {
    if (args_.group_n == 0) return args_.scales;
    if (args_.group_n == kTile) return args_.scales + row / kTile * groups_ + group;
    return args_.scales + lane(row, group, groups_);
  }

  uint8_t* block_scale(int64_t row, int64_t block) const {
    return args_.block_scales + lane(row, block, blocks_) * block_scale_bytes(args_.block_type);
  }

  void set_block_scale(int64_t row, int64_t block, unsigned code) const {
    uint8_t* at = block_scale(row, block);
    at[0] = static_cast<uint8_t>(code);
    if (args_.block_type == BlockScaleType::kBFloat16) at[1] = static_cast<uint8_t>(code >> 8);
  }

  // What the codes of a row are multiplied with from column k on, up to the end of its group.
  float step(int64_t row, int64_t k) const {
    const float scale =
        args_.group_n < 0 ? 1.0f : *this->scale(row, args_.group_k == 0 ? 0 : k / args_.group_k);
    if (blocks_ == 0) return scale;
    return block_scale_to_float(args_.block_type, block_scale(row, k / args_.block_k)) * scale;
  }

  uint8_t* panel(int64_t row) const {
    return args_.weight + row / kPanelRows * panel_bytes(args_.format, args_.k);
  }

  // `count` codes from column k, one byte each; what is behind them is 0 up to the next multiple of 64.
  void store_canonical(int64_t row, int64_t k, int64_t count, const uint8_t* codes) const {
    const int per = codes_per_byte(args_.format), bits = 8 / per;
    uint8_t* out = args_.weight + row * row_bytes_ + k / per;
    const bool is_last = k + count == args_.k;
    const int64_t bytes = is_last ? row_bytes_ - k / per : count / per;
    for (int64_t i = 0; i < bytes; ++i) {
      unsigned byte = 0;
      for (int j = 0; j < per; ++j) byte |= (codes[i * per + j] & ((1u << bits) - 1)) << (j * bits);
      out[i] = static_cast<uint8_t>(byte);
    }
  }

 private:
  int64_t lane(int64_t row, int64_t column, int64_t columns) const {
    if (!args_.packed) return row * columns + column;
    return (row / kPanelRows * columns + column) * kPanelRows + row % kPanelRows;
  }

  const QuantizeArgs& args_;
  int64_t groups_, blocks_, row_bytes_;
};

// A block scale of 1, for rows past the last.
inline unsigned block_scale_of_one(BlockScaleType type) {
  if (type == BlockScaleType::kE4M3) return 0x38;
  return type == BlockScaleType::kE8M0 ? 127 : 0x3f80;
}

}  // namespace
}  // namespace fdq
