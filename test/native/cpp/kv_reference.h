// A quantized KV pool in plain scalar code, from the words of fdq/kv_cache.h alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "fdq/ops.h"

namespace fdq_test {

// One head's key or value of one token.
struct KvHead {
  std::vector<double> codes;  // their values
  float scale;

  std::vector<double> decoded() const {
    std::vector<double> values = codes;
    for (double& v : values) v *= static_cast<double>(scale);
    return values;
  }
};

struct KvPlace {
  int64_t layer, block, head;
  bool value;
};

inline double e4m3_value(int code) {
  const int exponent = code >> 3 & 15, fraction = code & 7;
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

inline const uint8_t* kv_record_of(const fdq::KvPool& pool, const KvPlace& place) {
  const int64_t block = (place.layer * pool.num_blocks + place.block) * 2 * pool.num_kv_heads;
  const int64_t record = block + (place.value ? pool.num_kv_heads : 0) + place.head;
  return static_cast<const uint8_t*>(pool.base) + record * fdq::kv_record_bytes(pool.type, pool.head_dim);
}

inline KvHead read_kv_head(const fdq::KvPool& pool, const KvPlace& place, int64_t position) {
  const uint8_t* record = kv_record_of(pool, place);
  const int64_t padded = (pool.head_dim + 15) / 16 * 16;
  KvHead head;
  for (int64_t d = 0; d < pool.head_dim; ++d) {
    if (pool.type == fdq::KvType::kInt4) {
      const bool high = place.value ? d % 16 >= 8 : d % 2 == 1;
      const int64_t at = place.value ? position * padded / 2 + d / 16 * 8 + d % 8 : d / 2 * 16 + position;
      const int nibble = high ? record[at] >> 4 : record[at] & 15;
      head.codes.push_back(nibble < 8 ? nibble : nibble - 16);
      continue;
    }
    const uint8_t code = record[place.value ? position * padded + d : d * 16 + position];
    head.codes.push_back(pool.type == fdq::KvType::kFp8 ? e4m3_value(code) : static_cast<int8_t>(code));
  }
  const int64_t code_bytes = pool.type == fdq::KvType::kInt4 ? 8 * padded : 16 * padded;
  std::memcpy(&head.scale, record + code_bytes + position * 4, 4);
  return head;
}

// The nearest value of a type to x, ties to the even code.
inline double nearest_code(fdq::KvType type, float x) {
  if (type != fdq::KvType::kFp8) {
    const double limit = type == fdq::KvType::kInt8 ? 127 : 7;
    return std::clamp(std::nearbyint(static_cast<double>(x)), -limit, limit);
  }
  double best = 0;
  int best_code = 0;
  const double wanted = std::fabs(static_cast<double>(x));
  for (int code = 1; code <= 0x7e; ++code) {
    const double now = std::fabs(e4m3_value(code) - wanted), before = std::fabs(best - wanted);
    if (now < before || (now == before && best_code % 2 == 1)) {
      best = e4m3_value(code);
      best_code = code;
    }
  }
  return std::signbit(x) ? -best : best;
}

// What writing x [head_dim] must leave in the pool.
inline KvHead quantize_kv_head(fdq::KvType type, const float* x, int64_t head_dim) {
  float amax = 0;
  for (int64_t d = 0; d < head_dim; ++d) amax = std::max(amax, std::fabs(x[d]));
  const float largest = type == fdq::KvType::kInt8 ? 127.0f : type == fdq::KvType::kInt4 ? 7.0f : 448.0f;
  KvHead head;
  head.scale = amax / largest;
  if (head.scale == 0.0f) head.scale = 1.0f;
  for (int64_t d = 0; d < head_dim; ++d) head.codes.push_back(nearest_code(type, x[d] / head.scale));
  return head;
}

}  // namespace fdq_test
