// Layout of the paged KV pool, shared by the kernels, the addon and the tests.
#pragma once

#include <cstdint>

#include "fdq/formats.h"

namespace fdq {

// How keys and values are stored. The last three are quantized once, when a token is written: symmetric codes
// with one float32 scale for each token and KV head, another for its value. scale = amax / 127, 448 or 7, and
// 1 where that is 0; codes are rounded to nearest, ties to even. A head with an infinity or a NaN has scale
// NaN.
enum class KvType { kFloat32, kBFloat16, kInt8, kFp8, kInt4 };

constexpr bool is_quantized(KvType type) { return type >= KvType::kInt8; }

// Positions of a block.
constexpr int kKvBlockSize = 16;

// A pool of fixed-size blocks. One layer's block b holds the keys of each KV head, then the values of each:
// head records of kv_record_bytes(type, head_dim), of which
//   base + ((layer * num_blocks + b) * 2 * num_kv_heads + {0: keys, num_kv_heads: values} + h) * record bytes
// is the address of head h's.
//
//   keys                                      values
//   float32, bfloat16   [head_dim][16]        [16][head_dim]
//   int8, fp8 (e4m3)    [padded][16] bytes    [16][padded] bytes
//   int4                [padded / 2][16]      [16][padded / 2]      two codes a byte, two's complement
//   nibbles
//
// 16 positions of a key entry lie side by side: a vector load feeds 16 scores. padded is head_dim rounded up
// to 16; codes past head_dim are 0. Nibbles, low | high:
//   keys    byte[(d / 2) * 16 + position] = entry d | d + 1, d even: both of the same token
//   values  byte[position * padded / 2 + g * 8 + j] = entry 16 g + j | 16 g + 8 + j
// After the codes of a quantized record come its float32 scales [16].
struct KvPool {
  void* base;
  KvType type;
  int64_t num_layers, num_blocks, num_kv_heads, head_dim;
};

// Bytes of the keys (or values) of one head of a block, without scales.
constexpr int64_t kv_code_bytes(KvType type, int64_t head_dim) {
  const int64_t padded = (head_dim + 15) / 16 * 16;
  switch (type) {
    case KvType::kFloat32:
      return kKvBlockSize * head_dim * 4;
    case KvType::kBFloat16:
      return kKvBlockSize * head_dim * 2;
    case KvType::kInt4:
      return kKvBlockSize * padded / 2;
    default:
      return kKvBlockSize * padded;
  }
}

constexpr int64_t kv_record_bytes(KvType type, int64_t head_dim) {
  const int64_t scales = is_quantized(type) ? kKvBlockSize * static_cast<int64_t>(sizeof(float)) : 0;
  return kv_code_bytes(type, head_dim) + scales;
}

}  // namespace fdq
