// The names of formats and rules, and how many bytes a linear weight must have, so that no kernel reads past
// it.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "fdq/ops.h"

namespace fdq {

inline int64_t total_rows(const WeightShape& shape) {
  int64_t rows = 0;
  for (int64_t member : shape.member_rows) rows += member;
  return rows;
}

inline bool is_as_stored(WeightFormat format) {
  return format == WeightFormat::kFloat32 || format == WeightFormat::kFloat16 ||
         format == WeightFormat::kBFloat16;
}

inline int64_t total_panels(const WeightShape& shape) {
  int64_t panels = 0;
  for (int64_t rows : shape.member_rows) panels += num_panels(rows);
  return panels;
}

// In elements of its ONNX type: int4 codes, else bytes where the format lies in panels.
inline int64_t linear_weight_elements(const WeightShape& shape) {
  if (is_as_stored(shape.format)) return total_rows(shape) * shape.k;
  const int64_t bytes = total_panels(shape) * panel_bytes(shape.format, shape.k);
  return shape.format == WeightFormat::kInt4 ? 2 * bytes : bytes;
}

inline int64_t linear_scale_count(const WeightShape& shape) {
  if (is_as_stored(shape.format) || shape.group_n < 0) return 0;
  if (shape.group_n == 0) return static_cast<int64_t>(shape.member_rows.size());
  if (shape.group_n == 1) return total_panels(shape) * num_groups(shape.k, shape.group_k) * kPanelRows;
  int64_t count = 0;
  for (int64_t rows : shape.member_rows) count += ceil_div(rows, kTile) * ceil_div(shape.k, kTile);
  return count;
}

inline int64_t linear_block_scale_bytes(const WeightShape& shape) {
  return total_panels(shape) * num_blocks(shape.k, shape.block_k) * kPanelRows *
         block_scale_bytes(shape.block_type);
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

// Null when kernels know how the scales lie, else what is wrong.
inline const char* check_scale_geometry(const WeightShape& shape) {
  if (is_as_stored(shape.format)) return nullptr;
  const bool tiles = shape.group_n == kTile && shape.group_k == kTile;
  const bool rows = shape.group_n == 1 && shape.group_k >= 0 && shape.group_k % 32 == 0;
  const bool whole = (shape.group_n == 0 || shape.group_n == -1) && shape.group_k == 0;
  if (!tiles && !rows && !whole) {
    return "group_n and group_k must be 128 and 128, 1 and a multiple of 32, or 0 or -1 and 0";
  }
  const bool has_blocks = shape.block_type != BlockScaleType::kNone;
  const int columns = shape.block_k;
  if (has_blocks ? columns != 16 && columns != 32 && columns != 64 : columns != 0) {
    return "block scales must be of 16, 32 or 64 columns";
  }
  const bool takes_blocks = shape.format == WeightFormat::kE2M1 || shape.format == WeightFormat::kInt2;
  if (has_blocks && !takes_blocks) return "only e2m1 and int2 have block scales";
  if (takes_blocks && !has_blocks) return "e2m1 and int2 must have block scales";
  if (shape.group_n == -1 && !has_blocks) return "a format without block scales must have float32 ones";
  return nullptr;
}

struct LinearSizes {
  size_t weight_bytes;
  size_t scales;             // floats, 0 for none
  size_t bias;               // floats, 0 for none
  size_t block_scale_bytes;  // 0 for none
  size_t zero_points;        // 0 for none
};

// Null when rows, k and the geometry of scales make sense.
inline const char* check_linear_shape(const WeightShape& shape) {
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  if (shape.k < 1 || shape.k > kMaxElements || shape.member_rows.empty())
    return "rows and k must be at least 1";
  int64_t n = 0;
  for (int64_t rows : shape.member_rows) {
    if (rows < 1 || rows > kMaxElements / shape.k)
      return "rows and k must be at least 1 and below 2^40 elements";
    n += rows;
    if (n > kMaxElements / shape.k) return "rows and k must be at least 1 and below 2^40 elements";
  }
  return check_scale_geometry(shape);
}

// The same for everything beside the weight, of a shape that was checked.
inline const char* check_scale_sizes(const WeightShape& shape, const LinearSizes& sizes) {
  if (sizes.scales != static_cast<size_t>(linear_scale_count(shape))) {
    return "the scales' size does not fit rows, k and groups";
  }
  if (sizes.block_scale_bytes != static_cast<size_t>(linear_block_scale_bytes(shape))) {
    return "the block scales' size does not fit rows, k and blocks";
  }
  if (sizes.zero_points != 0) {
    if (shape.format != WeightFormat::kInt4 || shape.group_n != 1)
      return "only int4 with group_n 1 has zero points";
    if (sizes.zero_points != sizes.scales) return "the zero points' size is not that of the scales";
  }
  if (sizes.bias != 0 && sizes.bias != static_cast<size_t>(total_rows(shape))) {
    return "the bias's size does not fit rows";
  }
  return nullptr;
}

// Null when a kernel can use the weight, else what is wrong with it.
inline const char* check_linear_size(const WeightShape& shape, const LinearSizes& sizes) {
  const char* wrong = check_linear_shape(shape);
  if (wrong != nullptr) return wrong;
  if (sizes.weight_bytes != static_cast<size_t>(linear_weight_bytes(shape))) {
    return "the weight's size does not fit rows, k and format";
  }
  return check_scale_sizes(shape, sizes);
}

// Those of a 4-bit code: beyond, code - zero point would not fit the kernels' table.
inline const char* check_zero_points(const int8_t* zero_points, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (zero_points[i] < -8 || zero_points[i] > 8) return "a zero point is outside -8 to 8";
  }
  return nullptr;
}

inline const char* check_activation(const LinearActivation& activation) {
  if (!is_static(activation.rule)) return nullptr;
  return activation.scale > 0.0f && std::isfinite(activation.scale)
             ? nullptr
             : "a static activation rule needs a finite activation scale above 0";
}

inline bool parse_activation_rule(const std::string& name, ActivationRule* rule) {
  static constexpr std::pair<const char*, ActivationRule> kRules[] = {
      {"none", ActivationRule::kNone},
      {"e4m3_group128", ActivationRule::kE4M3Group128},
      {"e4m3_token", ActivationRule::kE4M3Token},
      {"int8_token", ActivationRule::kInt8Token},
      {"e4m3_static", ActivationRule::kE4M3Static},
      {"int8_static", ActivationRule::kInt8Static}};
  for (const auto& [known, value] : kRules) {
    if (name != known) continue;
    *rule = value;
    return true;
  }
  return false;
}

// '' is none.
inline bool parse_block_scale_type(const std::string& name, BlockScaleType* type) {
  static constexpr std::pair<const char*, BlockScaleType> kTypes[] = {
      {"", BlockScaleType::kNone},
      {"e4m3", BlockScaleType::kE4M3},
      {"e8m0", BlockScaleType::kE8M0},
      {"bfloat16", BlockScaleType::kBFloat16}};
  for (const auto& [known, value] : kTypes) {
    if (name != known) continue;
    *type = value;
    return true;
  }
  return false;
}

inline bool parse_weight_format_name(const std::string& name, WeightFormat* format) {
  static constexpr std::pair<const char*, WeightFormat> kFormats[] = {
      {"int8", WeightFormat::kInt8},         {"int4", WeightFormat::kInt4},
      {"int2", WeightFormat::kInt2},         {"nf4", WeightFormat::kNF4},
      {"e2m1", WeightFormat::kE2M1},         {"e4m3", WeightFormat::kE4M3},
      {"bfloat16", WeightFormat::kBFloat16}, {"float16", WeightFormat::kFloat16},
      {"float32", WeightFormat::kFloat32}};
  for (const auto& [known, value] : kFormats) {
    if (name != known) continue;
    *format = value;
    return true;
  }
  return false;
}

}  // namespace fdq
