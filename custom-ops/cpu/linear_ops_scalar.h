// Ops policy without vector instructions: loops over arrays, multiply then add.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/linear.h"
#include "cpu/linear_vec_scalar.h"
#include "cpu/number_formats.h"

namespace fdq {
namespace {

using Element = float;
constexpr int kTilePanels = 1;
constexpr int kTileTokens = 2;
constexpr int64_t kMaxFusedTokens = 2;
constexpr int64_t kFusedTokens = 2;
constexpr int fused_panels(int /*tokens*/) { return 1; }

// Two k of 16 rows: [16][2].
struct Weights {
  float v[2 * kPanelRows];

  static Weights load(const Element* p) {
    Weights w;
    std::memcpy(w.v, p, sizeof w.v);
    return w;
  }
  void store(Element* p) const { std::memcpy(p, v, sizeof v); }
};

struct KPair {
  float v[2];

  static KPair load(const Element* p) { return {{p[0], p[1]}}; }
};

struct Sum {
  float v[2 * kPanelRows];

  static Sum zero() { return {}; }
  void multiply_add(const Weights& w, const KPair& x) {
    for (int i = 0; i < kPanelRows; ++i) {
      v[2 * i] += w.v[2 * i] * x.v[0];
      v[2 * i + 1] += w.v[2 * i + 1] * x.v[1];
    }
  }
  Rows finish() const {
    Rows r;
    for (int i = 0; i < kPanelRows; ++i) r.v[i] = v[2 * i] + v[2 * i + 1];
    return r;
  }
};

template <WeightFormat F>
struct Decoder {
  float e4m3[256];

  Decoder() {
    if constexpr (F == WeightFormat::kE4M3) {
      for (int i = 0; i < 256; ++i) e4m3[i] = e4m3_to_float(static_cast<uint8_t>(i));
    }
  }
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 2 * kPanelRows; ++i) {
      if constexpr (F == WeightFormat::kInt8) {
        w0->v[i] = static_cast<float>(static_cast<int8_t>(codes[i]));
        w1->v[i] = static_cast<float>(static_cast<int8_t>(codes[2 * kPanelRows + i]));
      } else if constexpr (F == WeightFormat::kInt4) {
        w0->v[i] = static_cast<float>(nibble_to_int(codes[i]));
        w1->v[i] = static_cast<float>(nibble_to_int(codes[i] >> 4));
      } else {
        w0->v[i] = e4m3[codes[i]];
        w1->v[i] = e4m3[codes[2 * kPanelRows + i]];
      }
    }
  }
};

template <>
struct Decoder<WeightFormat::kNF4> {
  const float* table;

  explicit Decoder(const float* values) : table(values) {}
  void decode(const uint8_t* codes, Weights* w0, Weights* w1) const {
    for (int i = 0; i < 2 * kPanelRows; ++i) {
      w0->v[i] = table[codes[i] & 15];
      w1->v[i] = table[codes[i] >> 4];
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
        w[q].v[i] = scaled_value<F>(static_cast<unsigned>(codes[i]) >> (8 / kPairs * q), factor.v[i / 2]);
      }
    }
  }
};

constexpr int64_t kDotLanes = 8;
constexpr int kDotTokens = 1;

struct DotX {
  float v[kDotLanes];

  static DotX load(const Element* p) {
    DotX x;
    std::memcpy(x.v, p, sizeof x.v);
    return x;
  }
};

template <WeightFormat F>
DotX load_weights(const uint8_t* p) {
  DotX w;
  for (int i = 0; i < kDotLanes; ++i) {
    if constexpr (F == WeightFormat::kFloat32) {
      std::memcpy(&w.v[i], p + 4 * i, 4);
    } else {
      uint16_t bits;
      std::memcpy(&bits, p + 2 * i, 2);
      w.v[i] = F == WeightFormat::kBFloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
    }
  }
  return w;
}

struct DotSum {
  float v[kDotLanes];

  static DotSum zero() { return {}; }
  void multiply_add(const DotX& w, const DotX& x) {
    for (int i = 0; i < kDotLanes; ++i) v[i] += w.v[i] * x.v[i];
  }
  float sum() const { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
  static void add_lanes(const DotSum& a, const DotSum& b, const DotSum& c, const DotSum& d, float* out) {
    out[0] = a.sum();
    out[1] = b.sum();
    out[2] = c.sum();
    out[3] = d.sum();
  }
};

}  // namespace
}  // namespace fdq
