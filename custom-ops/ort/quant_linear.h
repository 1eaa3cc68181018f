// What QuantLinear's kernels for the CPU and for CUDA share: signature and attributes.
#pragma once

#include <stdexcept>

#include "ort/quant_weight.h"

namespace fdq::ort {

constexpr WeightInputs kLinearInputs{1, 2, 3, 4, 5};

// `element`: of x and y.
inline OpSchema quant_linear_schema(const char* provider, ElementTypeId element) {
  return {"QuantLinear",
          {{element, kRequired},
           {kUndefined, kRequired},
           {kFloat, kOptional},
           {kFloat, kOptional},
           {kUndefined, kOptional},
           {kInt8, kOptional}},
          element,
          provider};
}

inline LinearActivation read_activation(const KernelInfo& info) {
  LinearActivation activation{};
  const std::string name = info.get_string("activation");
  if (!parse_activation_rule(name, &activation.rule)) {
    throw std::invalid_argument("unknown activation rule " + name);
  }
  activation.scale = info.get_float("activation_scale");
  const char* wrong = check_activation(activation);
  if (wrong != nullptr) throw std::invalid_argument(wrong);
  return activation;
}

// Rows of x, whose columns must be k.
inline int64_t check_tokens(const Tensor& x, int64_t k) {
  if (x.shape.size() != 2 || x.shape[1] != k) throw std::invalid_argument("x must be [tokens, k]");
  return x.shape[0];
}

}  // namespace fdq::ort
