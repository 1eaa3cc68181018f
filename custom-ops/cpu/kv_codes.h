// Elements of a quantized KV pool, see fdq/kv_cache.h, and how a token's key and value become such.
#pragma once

#include <cstdint>

#include "cpu/quantize.h"
#include "fdq/ops.h"

namespace fdq {

struct Int8Code {
  static constexpr WeightFormat kFormat = WeightFormat::kInt8;
  static constexpr float kUnit = 1.0f;  // value of a code = kUnit x what its vector load gives
  static constexpr int kEntries = 1;    // entries in an element
  int8_t bits;
};

struct Fp8Code {
  static constexpr WeightFormat kFormat = WeightFormat::kE4M3;
  // Bits shifted into a float16 are the value times 2^-8, subnormal or not: the exponents' biases are 7
  // and 15.
  static constexpr float kUnit = 256.0f;
  static constexpr int kEntries = 1;
  uint8_t bits;
};

struct Int4Codes {
  static constexpr WeightFormat kFormat = WeightFormat::kInt4;
  static constexpr float kUnit = 1.0f;
  static constexpr int kEntries = 2;
  uint8_t bits;
};

// Elements of the pool: float, uint16_t (bfloat16) or one of the above.
template <typename E>
struct KvElement {
  static constexpr bool kQuantized = true;
  static constexpr float kUnit = E::kUnit;
  // Elements of one position's value.
  static int64_t value_stride(int64_t head_dim) { return round_up(head_dim, 16) / E::kEntries; }
  // Of the element that holds the first of the entries from i on.
  static int64_t index(int64_t i) { return i / E::kEntries; }
};

template <>
struct KvElement<float> {
  static constexpr bool kQuantized = false;
  static int64_t value_stride(int64_t head_dim) { return head_dim; }
  static int64_t index(int64_t i) { return i; }
};

template <>
struct KvElement<uint16_t> : KvElement<float> {};

// The record of a head's keys or values, fdq/kv_cache.h.
inline uint8_t* kv_record(const KvPool& pool, int64_t layer, int64_t block, int64_t head, bool values) {
  const int64_t heads = pool.num_kv_heads;
  const int64_t index = ((layer * pool.num_blocks + block) * 2 + (values ? 1 : 0)) * heads + head;
  return static_cast<uint8_t*>(pool.base) + index * kv_record_bytes(pool.type, pool.head_dim);
}

enum class KvPart { kKey, kValue };

// Quantizes one head's key or value, x [head_dim], into its place in a record.
void write_codes(const KvPool& pool, const QuantizeKernels& quantizers, const float* x, KvPart part,
                 int offset, uint8_t* record);

}  // namespace fdq
