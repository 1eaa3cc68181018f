// The quantized weight of a node: attributes and initializers that QuantLinear and QuantGather share,
// checked.
#pragma once

#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort/custom_op.h"
#include "ort/linear_size.h"

namespace fdq::ort {

inline int64_t element_count(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

inline ElementTypeId element_type_of(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFloat32:
      return kFloat;
    case WeightFormat::kFloat16:
      return kFloat16;
    case WeightFormat::kBFloat16:
      return kBFloat16;
    case WeightFormat::kInt8:
      return kInt8;
    case WeightFormat::kInt4:
      return kInt4;
    case WeightFormat::kE4M3:
      return kFloat8E4M3FN;
    case WeightFormat::kInt2:
    case WeightFormat::kNF4:
    case WeightFormat::kE2M1:
      return kUint8;
  }
  return kUndefined;
}

// e8m0 is younger than what ONNX Runtime reads.
inline ElementTypeId element_type_of(BlockScaleType type) {
  if (type == BlockScaleType::kE4M3) return kFloat8E4M3FN;
  return type == BlockScaleType::kE8M0 ? kUint8 : kBFloat16;
}

// Input numbers; -1 where an op has no such input.
struct WeightInputs {
  int weight, scales, bias, block_scales, zero_points;
};

// How an op's kernel wants the bytes of a weight to lie: attribute `layout`. On CUDA as fdq/cuda.h says,
// where one scale a tensor is repeated for every row. Never written to a file: releases that do not know the
// attribute would take the bytes for panels.
enum class WeightLayout { kPanels, kCuda };

inline void check_layout(const KernelInfo& info, WeightLayout layout) {
  const std::string name = info.get_string_or("layout", "panels");
  if (name != "panels" && name != "cuda") throw std::invalid_argument("unknown layout " + name);
  if (name == (layout == WeightLayout::kCuda ? "cuda" : "panels")) return;
  throw std::invalid_argument(name == "cuda" ? "the weight lies as CUDA's kernels read it, not the CPU's"
                                             : "the weight lies as the CPU's kernels read it, not CUDA's");
}

inline WeightShape read_weight_shape(const KernelInfo& info) {
  WeightShape shape{};
  const std::string format = info.get_string("format"), block_type = info.get_string("block_type");
  if (!parse_weight_format_name(format, &shape.format)) {
    throw std::invalid_argument("unknown weight format " + format);
  }
  if (!parse_block_scale_type(block_type, &shape.block_type)) {
    throw std::invalid_argument("unknown block scale type " + block_type);
  }
  shape.member_rows = info.get_ints("rows");
  shape.k = info.get_int("k");
  shape.group_n = static_cast<int>(info.get_int("group_n"));
  shape.group_k = static_cast<int>(info.get_int("group_k"));
  shape.block_k = static_cast<int>(info.get_int("block_k"));
  return shape;
}

// Throws where an initializer is missing, or its type or size is not what the attributes say. On CUDA the
// data are on the device and none are looked at.
inline LinearWeight read_weight(const KernelInfo& info, const WeightInputs& inputs, WeightLayout layout) {
  check_layout(info, layout);
  LinearWeight weight{};
  weight.shape = read_weight_shape(info);
  const char* wrong = check_linear_shape(weight.shape);
  if (wrong != nullptr) throw std::invalid_argument(wrong);
  const auto data = [&](int index) -> const void* {
    return index < 0 ? nullptr : info.constant(static_cast<size_t>(index));
  };
  const auto count = [&](int index) {
    if (data(index) == nullptr) return size_t{0};
    return static_cast<size_t>(element_count(info.constant_shape(static_cast<size_t>(index))));
  };
  const auto check_type = [&](int index, ElementTypeId type, const char* what) {
    if (data(index) != nullptr && info.constant_type(static_cast<size_t>(index)) != type) {
      throw std::invalid_argument(std::string("the element type of the ") + what +
                                  " is not that of the format");
    }
  };
  weight.data = data(inputs.weight);
  weight.scales = static_cast<const float*>(data(inputs.scales));
  weight.bias = static_cast<const float*>(data(inputs.bias));
  weight.block_scales = static_cast<const uint8_t*>(data(inputs.block_scales));
  weight.zero_points = static_cast<const int8_t*>(data(inputs.zero_points));
  if (weight.data == nullptr) throw std::invalid_argument("the weight must be an initializer");
  check_type(inputs.weight, element_type_of(weight.shape.format), "weight");
  check_type(inputs.block_scales, element_type_of(weight.shape.block_type), "block scales");
  check_type(inputs.zero_points, kInt8, "zero points");
  const auto elements = count(inputs.weight);
  const LinearSizes sizes{
      0, count(inputs.scales), count(inputs.bias),
      count(inputs.block_scales) * static_cast<size_t>(block_scale_bytes(weight.shape.block_type)),
      count(inputs.zero_points)};
  if (elements != static_cast<size_t>(linear_weight_elements(weight.shape))) {
    wrong = "the weight's size does not fit rows, k and format";
  }
  WeightShape stored = weight.shape;
  if (layout == WeightLayout::kCuda && stored.group_n == 0) stored.group_n = 1;
  if (wrong == nullptr) wrong = check_scale_sizes(stored, sizes);
  if (wrong == nullptr && layout == WeightLayout::kPanels) {
    wrong = check_zero_points(weight.zero_points, sizes.zero_points);
  }
  if (wrong != nullptr) throw std::invalid_argument(wrong);
  return weight;
}

}  // namespace fdq::ort
