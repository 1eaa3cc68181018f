// Tiles as Intel's SDM defines TDPBF16PS, in portable code: within one tile product the even and the odd k of
// a pair are summed apart by fused multiply-adds, then added to each other and to C; denormals are zero
// everywhere.
#pragma once

#include <cmath>
#include <cstdlib>

#include "cpu/linear.h"
#include "cpu/linear_vec_scalar.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

using Element = uint16_t;

struct Weights {
  uint16_t v[2 * kPanelRows];

  void store(Element* p) const { std::memcpy(p, v, sizeof v); }
};

template <WeightFormat F>
struct Decoder {
  static float value(uint8_t code) {
    return F == WeightFormat::kInt8 ? static_cast<float>(static_cast<int8_t>(code)) : e4m3_to_float(code);
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 2 * kPanelRows; ++i) {
      const bool nibbles = F == WeightFormat::kInt4;
      const float first = nibbles ? static_cast<float>(nibble_to_int(codes[i])) : value(codes[i]);
      const float second =
          nibbles ? static_cast<float>(nibble_to_int(codes[i] >> 4)) : value(codes[2 * kPanelRows + i]);
      w0->v[i] = float_to_bfloat16(first);
      w1->v[i] = float_to_bfloat16(second);
    }
  }
};

template <>
struct Decoder<WeightFormat::kNF4> {
  const float* table;

  explicit Decoder(const float* values) : table(values) {}
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 2 * kPanelRows; ++i) {
      w0->v[i] = float_to_bfloat16(table[codes[i] & 15]);
      w1->v[i] = float_to_bfloat16(table[codes[i] >> 4]);
    }
  }
};

template <WeightFormat F>
struct ScaledDecoder {
  static constexpr int kPairs = codes_per_byte(F);
  struct Factor {
    float v[kPanelRows];

    Factor(const Rows& rows, bool /*bounded*/) { std::memcpy(v, rows.v, sizeof v); }
  };

  void decode(const uint8_t* codes, const Factor& factor, Weights* w) const {
    for (int q = 0; q < kPairs; ++q) {
      for (int i = 0; i < 2 * kPanelRows; ++i) {
        const float value =
            scaled_value<F>(static_cast<unsigned>(codes[i]) >> (8 / kPairs * q), factor.v[i / 2]);
        w[q].v[i] = float_to_bfloat16(value);
      }
    }
  }
};

inline float flush(float value) {
  return std::fabs(value) < 1.17549435e-38f ? std::copysign(0.0f, value) : value;
}

struct Tiles {
  static inline thread_local uint8_t registers[8][16][64];
  static inline thread_local bool configured = false;

  static void configure() {
    if (configured) std::abort();
    configured = true;
    std::memset(registers, 0x7f, sizeof registers);
  }
  static void release() { configured = false; }
  template <int T>
  static void zero() {
    if (!configured) std::abort();
    std::memset(registers[T], 0, sizeof registers[T]);
  }
  template <int T>
  static void load(const void* base, int64_t stride) {
    for (int64_t r = 0; r < 16; ++r)
      std::memcpy(registers[T][r], static_cast<const uint8_t*>(base) + r * stride, 64);
  }
  template <int T>
  static void store(void* base, int64_t stride) {
    for (int64_t r = 0; r < 16; ++r)
      std::memcpy(static_cast<uint8_t*>(base) + r * stride, registers[T][r], 64);
  }
  template <int C, int A, int B>
  static void multiply() {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        float sums[2] = {};
        for (int k = 0; k < 16; ++k) {
          for (int j = 0; j < 2; ++j) {
            uint16_t a, b;
            std::memcpy(&a, registers[A][m] + (2 * k + j) * 2, 2);
            std::memcpy(&b, registers[B][k] + (2 * n + j) * 2, 2);
            sums[j] = flush(std::fma(flush(bfloat16_to_float(a)), flush(bfloat16_to_float(b)), sums[j]));
          }
        }
        float c;
        std::memcpy(&c, registers[C][m] + 4 * n, 4);
        c = flush(flush(c) + flush(sums[0] + sums[1]));
        std::memcpy(registers[C][m] + 4 * n, &c, 4);
      }
    }
  }
};

}  // namespace
}  // namespace fdq
