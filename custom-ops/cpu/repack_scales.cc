// Scales and zero points of stored weights to the geometry of panels
#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/number_formats.h"
#include "cpu/repack_stored.h"

namespace fdq {
namespace {

constexpr int kAwqNibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // nibble of each row of an AWQ word
constexpr uint8_t kOneE4M3 = 0x38;
constexpr uint8_t kLargestE4M3 = 0x7e;

float widen(const uint8_t* source, ScaleType type) {
  if (type == ScaleType::kE8M0) return *source == 0xff ? NAN : std::ldexp(1.0f, *source - 127);
  if (type == ScaleType::kFloat32) {
    float value;
    std::memcpy(&value, source, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, source, sizeof half);
  return type == ScaleType::kBFloat16 ? bfloat16_to_float(half) : float16_to_float(half);
}

// Index of a row's scale among groups of panels.
int64_t panel_index(int64_t row, int64_t group, int64_t groups) {
  return (row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows;
}

}  // namespace

int64_t stored_scale_count(const StoredScales& scales) {
  switch (scales.layout) {
    case ScaleLayout::kRows:
    case ScaleLayout::kColumns:
      return scales.n * scales.groups;
    case ScaleLayout::kTiles:
      return ceil_div(scales.n, kTile) * scales.groups;
    case ScaleLayout::kTensor:
      return 1;
  }
  return 0;
}

InvalidGroup repack_scales(const StoredScales& scales, const uint8_t* source, float* target) {
  const int64_t rows = scales.group_n == 1       ? scales.n
                       : scales.group_n == kTile ? ceil_div(scales.n, kTile)
                                                 : 1;
  const int64_t groups = scales.group_n == 0 ? 1 : scales.groups;
  if (scales.group_n == 1) std::fill(target, target + num_panels(rows) * kPanelRows * groups, 1.0f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t at = scales.layout == ScaleLayout::kTensor    ? 0
                         : scales.layout == ScaleLayout::kColumns ? group * scales.n + row
                                                                  : row * groups + group;
      float value = widen(source + at * scale_bytes(scales.type), scales.type);
      if (scales.reciprocal) value = 1.0f / value;
      if (!std::isfinite(value)) return {true, row * std::max(1, scales.group_n), group, 0};
      target[scales.group_n == 1 ? panel_index(row, group, groups) : row * groups + group] = value;
    }
  }
  return InvalidGroup();
}

InvalidGroup repack_block_scales(int64_t n, int64_t blocks, const uint8_t* source, uint8_t* target) {
  std::fill(target, target + num_panels(n) * kPanelRows * blocks, kOneE4M3);
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t block = 0; block < blocks; ++block) {
      const uint8_t scale = source[row * blocks + block];
      if (scale > kLargestE4M3) return {true, row, block, 0};
      target[panel_index(row, block, blocks)] = scale;
    }
  }
  return InvalidGroup();
}

InvalidGroup repack_zeros(const StoredZeros& zeros, const uint8_t* source, int8_t* target) {
  const int bits = zeros.format == WeightFormat::kInt4 ? 4 : 8;
  const int64_t per_word = 32 / bits;
  const int64_t line = ceil_div(zeros.n, per_word);
  const uint32_t mask = (1u << bits) - 1;
  const uint32_t ones = bits == 4 ? 0x11111111u : 0x01010101u;
  if (target != nullptr)
    std::fill(target, target + num_panels(zeros.n) * kPanelRows * zeros.groups, int8_t{0});
  for (int64_t row = 0; row < zeros.n; ++row) {
    const int64_t place = row % per_word;
    const int64_t shift = bits * (zeros.layout == ZeroLayout::kAwq ? kAwqNibble[place] : place);
    for (int64_t group = 0; group < zeros.groups; ++group) {
      const bool by_rows = zeros.layout == ZeroLayout::kPackedRows;
      const int64_t at = by_rows ? row / per_word * zeros.groups + group : group * line + row / per_word;
      uint32_t word;
      std::memcpy(&word, source + 4 * at, sizeof word);
      // Writers subtract from whole words: a zero point of 0 borrows from the one after it.
      if (zeros.minus_one) word += ones;
      const int zero = static_cast<int>((word >> shift) & mask) - (1 << (bits - 1));
      if (target != nullptr) {
        target[panel_index(row, group, zeros.groups)] = static_cast<int8_t>(zero);
      } else if (zero != 0) {
        return {true, row, group, zero};
      }
    }
  }
  return InvalidGroup();
}

}  // namespace fdq
