// How many bytes a linear weight must have, so that no kernel reads past it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

inline int64_t total_rows(const WeightShape& shape) {
  int64_t rows = 0;
  for (int64_t member : shape.member_rows) rows += member;
  return rows;
}

inline bool is_as_stored(WeightFormat format) {
  return format == WeightFormat::kFloat32 || format == WeightFormat::kFloat16 || format == WeightFormat::kBFloat16;
}

inline int64_t linear_weight_elements(const WeightShape& shape) {
  if (is_as_stored(shape.format)) return total_rows(shape) * shape.k;
  int64_t panels = 0;
  for (int64_t rows : shape.member_rows) panels += num_panels(rows);
  return panels * kPanelRows * padded_k(shape.k);
}

inline int64_t linear_scale_count(const WeightShape& shape) {
  if (is_as_stored(shape.format)) return 0;
  int64_t count = 0;
  for (int64_t rows : shape.member_rows) {
    count += shape.group_n == 1 ? num_panels(rows) * num_groups(shape.k, shape.group_k) * kPanelRows
                                : ceil_div(rows, kTile) * ceil_div(shape.k, kTile);
  }
  return count;
}

inline int64_t linear_weight_bytes(const WeightShape& shape) {
  const int64_t elements = linear_weight_elements(shape);
  switch (shape.format) {
    case WeightFormat::kFloat32:
      return elements * 4;
    case WeightFormat::kFloat16:
    case WeightFormat::kBFloat16:
      return elements * 2;
    case WeightFormat::kInt4:
      return elements / 2;
    default:
      return elements;
  }
}

struct LinearSizes {
  size_t weight_bytes;
  size_t scales;  // floats, 0 for none
  size_t bias;    // floats, 0 for none
};

// Null when a kernel can use the weight, else what is wrong with it.
inline const char* check_linear_size(const WeightShape& shape, const LinearSizes& sizes) {
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  if (shape.k < 1 || shape.k > kMaxElements || shape.member_rows.empty()) return "rows and k must be at least 1";
  int64_t n = 0;
  for (int64_t rows : shape.member_rows) {
    if (rows < 1 || rows > kMaxElements / shape.k) return "rows and k must be at least 1 and below 2^40 elements";
    n += rows;
    if (n > kMaxElements / shape.k) return "rows and k must be at least 1 and below 2^40 elements";
  }
  if (!is_as_stored(shape.format)) {
    const bool tiles = shape.group_n == kTile && shape.group_k == kTile;
    if (!tiles && (shape.group_n != 1 || shape.group_k < 0 || shape.group_k % 32 != 0)) {
      return "group_n and group_k must be 128 and 128, or 1 and a multiple of 32";
    }
  }
  if (sizes.weight_bytes != static_cast<size_t>(linear_weight_bytes(shape))) {
    return "the weight's size does not fit rows, k and format";
  }
  if (sizes.scales != static_cast<size_t>(linear_scale_count(shape))) {
    return "the scales' size does not fit rows, k and groups";
  }
  if (sizes.bias != 0 && sizes.bias != static_cast<size_t>(n)) return "the bias's size does not fit rows";
  return nullptr;
}

}  // namespace fdq
