// SwiGLU over Vec (16 lanes). Include after one of vector_math_*.h.
#pragma once

#include <cstdint>

#include "cpu/swiglu.h"

namespace fdq {
namespace {

void swiglu_row(const float* x, int64_t width, float* y) {
  const Vec one = Vec::set(1.0f), zero = Vec::set(0.0f);
  for (int64_t i = 0; i < width; i += 16) {
    const int lanes = width - i < 16 ? static_cast<int>(width - i) : 16;
    const Vec gate = Vec::load_first(x + i, lanes), up = Vec::load_first(x + width + i, lanes);
    const Vec silu = Vec::div(gate, Vec::add(one, exp_lanes(Vec::sub(zero, gate))));
    Vec::store_first(y + i, Vec::mul(silu, up), lanes);
  }
}

void exp_array(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i += 16) {
    const int lanes = count - i < 16 ? static_cast<int>(count - i) : 16;
    Vec::store_first(y + i, exp_lanes(Vec::load_first(x + i, lanes)), lanes);
  }
}

}  // namespace
}  // namespace fdq
