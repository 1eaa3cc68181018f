// The attribute `compute` of an op.
#pragma once

#include <stdexcept>
#include <string>

#include "fdq/formats.h"

namespace fdq::ort {

inline ComputeType parse_compute(const std::string& name) {
  if (name == "float32") return ComputeType::kFloat32;
  if (name == "bfloat16") return ComputeType::kBFloat16;
  throw std::invalid_argument("unknown compute type " + name);
}

}  // namespace fdq::ort
