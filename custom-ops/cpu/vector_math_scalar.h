// Vec for any machine: 16 floats and loops. The reference of the other two.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/vector_math.h"

namespace fdq {
namespace {

struct Vec {
  float lane[16];

  static constexpr int kRegisterRows = 1;  // query rows that share one pass over keys and values
  static constexpr int tile_columns(int) { return 1; }

  template <typename F>
  static Vec make(const F& f) {
    Vec r;
    for (int i = 0; i < 16; ++i) r.lane[i] = f(i);
    return r;
  }
  template <typename F>
  static uint32_t make_mask(const F& f) {
    uint32_t r = 0;
    for (int i = 0; i < 16; ++i) r |= static_cast<uint32_t>(f(i) ? 1 : 0) << i;
    return r;
  }

  static float widen(uint16_t half) {
    const uint32_t bits = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  // Round to nearest even; NaN stays NaN (quiet).
  static uint16_t narrow(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  }

  static Vec set(float x) {
    return make([&](int) { return x; });
  }
  static Vec load(const float* p) {
    return make([&](int i) { return p[i]; });
  }
  static Vec load(const uint16_t* p) {
    return make([&](int i) { return widen(p[i]); });
  }
  // Lanes from n on are 0 and their memory is not touched.
  static Vec load_first(const float* p, int n) {
    return make([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static Vec load_first(const uint16_t* p, int n) {
    return make([&](int i) { return i < n ? widen(p[i]) : 0.0f; });
  }
  static void store(float* p, const Vec& a) { std::memcpy(p, a.lane, sizeof(a.lane)); }
  static void store(uint16_t* p, const Vec& a) { store_first(p, a, 16); }
  static void store_first(float* p, const Vec& a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.lane[i];
  }
  static void store_first(uint16_t* p, const Vec& a, int n) {
    for (int i = 0; i < n; ++i) p[i] = narrow(a.lane[i]);
  }
  static void store_int(int32_t* p, const Vec& a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int32_t>(a.lane[i]);
  }

  static Vec add(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Vec sub(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Vec mul(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Vec div(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static Vec fma(const Vec& a, const Vec& b, const Vec& c) {
    return make([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  // As the instructions do it: b where either is NaN.
  static Vec max(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vec min(const Vec& a, const Vec& b) {
    return make([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vec round(const Vec& a) {
    return make([&](int i) { return std::nearbyint(a.lane[i]); });
  }
  // a * 2^n, rounded once; |n| <= 152.
  static Vec scale_by_power_of_two(const Vec& a, const Vec& n) {
    return make([&](int i) {
      return a.lane[i] != a.lane[i] ? a.lane[i] : std::ldexp(a.lane[i], static_cast<int>(n.lane[i]));
    });
  }

  // Lanes outside [from, to) become `other`.
  static Vec keep(const Vec& a, int from, int to, float other) {
    return make([&](int i) { return i >= from && i < to ? a.lane[i] : other; });
  }
  static Vec select(uint32_t mask, const Vec& a, const Vec& b) {
    return make([&](int i) { return (mask >> i) & 1 ? a.lane[i] : b.lane[i]; });
  }
  static uint32_t greater(const Vec& a, const Vec& b) {
    return make_mask([&](int i) { return a.lane[i] > b.lane[i]; });
  }
  static uint32_t equal(const Vec& a, const Vec& b) {
    return make_mask([&](int i) { return a.lane[i] == b.lane[i]; });
  }
  static uint32_t is_nan(const Vec& a) {
    return make_mask([&](int i) { return a.lane[i] != a.lane[i]; });
  }

  // Halves folded onto each other, the same tree on every machine.
  static float sum(const Vec& a) {
    float s[16];
    std::memcpy(s, a.lane, sizeof(s));
    for (int half = 8; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) s[i] += s[i + half];
    }
    return s[0];
  }
  static float highest(const Vec& a) {
    float m = a.lane[0];
    for (int i = 1; i < 16; ++i) m = m > a.lane[i] ? m : a.lane[i];
    return m;
  }
};

}  // namespace
}  // namespace fdq
