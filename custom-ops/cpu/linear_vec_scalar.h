// 16 rows of a panel as an array.
#pragma once

#include <cstring>

#include "cpu/number_formats.h"
#include "fdq/formats.h"

namespace fdq {
namespace {

inline void prefetch(const void* /*address*/) {}

struct Rows {
  float v[kPanelRows];

  static Rows set(float x) {
    Rows r;
    for (float& value : r.v) value = x;
    return r;
  }
  static Rows load(const float* p) {
    Rows r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
  }
  static void store(float* p, const Rows& a) { std::memcpy(p, a.v, sizeof a.v); }
  static Rows add(Rows a, const Rows& b) {
    for (int i = 0; i < kPanelRows; ++i) a.v[i] += b.v[i];
    return a;
  }
  static Rows mul(Rows a, const Rows& b) {
    for (int i = 0; i < kPanelRows; ++i) a.v[i] *= b.v[i];
    return a;
  }
  static Rows fma(const Rows& a, const Rows& b, Rows c) {
    for (int i = 0; i < kPanelRows; ++i) c.v[i] += a.v[i] * b.v[i];
    return c;
  }
};

// 16 narrow scales as float32.
inline Rows widen_block_scales(BlockScaleType type, const uint8_t* scales) {
  float values[kPanelRows];
  for (int r = 0; r < kPanelRows; ++r) {
    values[r] = block_scale_to_float(type, scales + r * block_scale_bytes(type));
  }
  return Rows::load(values);
}

}  // namespace
}  // namespace fdq
