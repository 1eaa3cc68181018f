// Where a code lies in the layouts of fdq/cuda.h, for one panel of 16 rows.
#pragma once

#include <cstdint>

#include "fdq/cuda.h"

namespace fdq::cuda {

constexpr int kUnitBytes = 16;

struct Place {
  int64_t byte;  // of the panel
  int shift;     // of the code's lowest bit
};

struct Code {
  int row;  // 0 .. 15
  int64_t k;
};

constexpr int code_bits(WeightFormat format) { return format == WeightFormat::kInt4 ? 4 : 8; }
constexpr int codes_per_unit(WeightFormat format) { return kUnitBytes * 8 / code_bits(format); }

// Code `index`, counted from the lowest bits of the first byte, of the 16 bytes `unit` of a panel.
constexpr Code code_of(Layout layout, WeightFormat format, int64_t padded, int64_t unit, int index) {
  const bool is_int4 = format == WeightFormat::kInt4;
  if (layout == Layout::kRows) {
    return {static_cast<int>(unit / (padded / kUnitBytes)),
            unit % (padded / kUnitBytes) * kUnitBytes + index};
  }
  if (layout == Layout::kPanels) {
    // Bytes are [rows][2 k]; a byte of int4 also holds the next pair.
    const int byte = is_int4 ? index / 2 : index;
    const int64_t row_of_pairs = unit / 2;
    const int64_t first = row_of_pairs * (is_int4 ? 4 : 2) + (is_int4 ? index % 2 * 2 : 0);
    return {static_cast<int>(unit % 2) * 8 + byte / 2, first + byte % 2};
  }
  const int lane = static_cast<int>(unit % 32), g = lane / 4, t = lane % 4;
  const int64_t chunk = unit / 32;
  const int word = index * code_bits(format) / 32;
  if (is_int4) {
    const int i = index % 8;
    return {g + 8 * (i % 2), chunk * 64 + word * 16 + i / 2 % 2 * 8 + 2 * t + i / 4};
  }
  const int j = index % 4;
  return {g + 8 * (j % 2), chunk * 32 + word * 8 + 2 * t + j / 2};
}

// The inverse.
constexpr Place place_of(Layout layout, WeightFormat format, int64_t padded, const Code& code) {
  const bool is_int4 = format == WeightFormat::kInt4;
  const int row = code.row;
  const int64_t k = code.k;
  if (layout == Layout::kRows) return {row * padded + k, 0};
  if (layout == Layout::kPanels) {
    if (is_int4) return {(k / 4 * kPanelRows + row) * 2 + k % 2, static_cast<int>(k % 4 / 2 * 4)};
    return {(k / 2 * kPanelRows + row) * 2 + k % 2, 0};
  }
  const int64_t lane = row % 8 * 4 + k % 8 / 2;
  const int64_t half = row / 8, pair = k % 2;
  if (is_int4) {
    const int64_t nibble = half + k % 16 / 8 * 2 + pair * 4;
    return {(k / 64 * 32 + lane) * kUnitBytes + k % 64 / 16 * 4 + nibble / 2,
            static_cast<int>(nibble % 2 * 4)};
  }
  return {(k / 32 * 32 + lane) * kUnitBytes + k % 32 / 8 * 4 + pair * 2 + half, 0};
}

}  // namespace fdq::cuda
