// What happens to a token before attention: RMSNorm of the query and key heads, rotation, the write into the
// pool. Written over Vec.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/attention_kernel.h"

namespace fdq {
namespace {

inline int lanes_left(int64_t i, int64_t n) { return n - i < 16 ? static_cast<int>(n - i) : 16; }

void normalize_head(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  Vec squares = Vec::set(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const Vec v = Vec::load_first(x + i, lanes_left(i, n));
    squares = Vec::fma(v, v, squares);
  }
  const Vec factor = Vec::set(1.0f / std::sqrt(Vec::sum(squares) / static_cast<float>(n) + epsilon));
  for (int64_t i = 0; i < n; i += 16) {
    const int lanes = lanes_left(i, n);
    const Vec v = Vec::mul(Vec::load_first(x + i, lanes), factor);
    Vec::store_first(y + i, Vec::mul(v, Vec::load_first(weight + i, lanes)), lanes);
  }
}

// cos_sin: [pairs] cos, then [pairs] sin.
void rotate_head(float* x, const float* cos_sin, int64_t pairs, bool interleaved) {
  if (interleaved) {
    for (int64_t i = 0; i < pairs; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cos_sin[i] - b * cos_sin[pairs + i];
      x[2 * i + 1] = b * cos_sin[i] + a * cos_sin[pairs + i];
    }
    return;
  }
  for (int64_t i = 0; i < pairs; i += 16) {
    const int lanes = lanes_left(i, pairs);
    const Vec a = Vec::load_first(x + i, lanes), b = Vec::load_first(x + pairs + i, lanes);
    const Vec cosine = Vec::load_first(cos_sin + i, lanes);
    const Vec sine = Vec::load_first(cos_sin + pairs + i, lanes);
    Vec::store_first(x + i, Vec::sub(Vec::mul(a, cosine), Vec::mul(b, sine)), lanes);
    Vec::store_first(x + pairs + i, Vec::add(Vec::mul(b, cosine), Vec::mul(a, sine)), lanes);
  }
}

// y = rotated, normalized x; x and y [head_dim].
void prepare_head(const AttentionArgs& args, const float* x, const float* norm, const float* cos_sin,
                  float* y) {
  const int64_t n = args.head_dim;
  if (norm != nullptr) {
    normalize_head(x, norm, args.norm_epsilon, n, y);
  } else {
    for (int64_t i = 0; i < n; i += 16) {
      Vec::store_first(y + i, Vec::load_first(x + i, lanes_left(i, n)), lanes_left(i, n));
    }
  }
  if (args.rotary_dim > 0) rotate_head(y, cos_sin, args.rotary_dim / 2, args.rotary_interleaved);
}

template <typename E>
void write_slot(const AttentionArgs& args, const KvSlot& slot, int64_t head, const float* key,
                const float* value) {
  uint8_t* key_record = kv_record(args.pool, args.layer, slot.block, head, false);
  uint8_t* value_record = kv_record(args.pool, args.layer, slot.block, head, true);
  if constexpr (KvElement<E>::kQuantized) {
    write_codes(args.pool, kv_quantizers(), key, KvPart::kKey, slot.offset, key_record);
    write_codes(args.pool, kv_quantizers(), value, KvPart::kValue, slot.offset, value_record);
  } else {
    E* keys = reinterpret_cast<E*>(key_record) + slot.offset;
    E* values = reinterpret_cast<E*>(value_record) + slot.offset * args.head_dim;
    for (int64_t i = 0; i < args.head_dim; i += 16) {
      const int lanes = lanes_left(i, args.head_dim);
      E column[16];
      Vec::store(column, Vec::load_first(key + i, lanes));
      for (int d = 0; d < lanes; ++d) keys[(i + d) * kKvBlockSize] = column[d];
      Vec::store_first(values + i, Vec::load_first(value + i, lanes), lanes);
    }
  }
}

// Queries for the products P, zero past head_dim; keys and values to a pool of elements E.
template <typename P, typename E>
void prepare_token(const AttentionArgs& args, int64_t t, const KvSlot& slot, void* q, float* head) {
  const int64_t n = args.head_dim, stride = P::query_stride(n);
  const float* row = args.qkv + t * (args.num_heads + 2 * args.num_kv_heads) * n;
  const float* cos_sin = args.rotary + t * args.rotary_dim;
  const Vec scale = Vec::set(args.scale);
  for (int64_t h = 0; h < args.num_heads; ++h) {
    auto* y = static_cast<typename P::Query*>(q) + (t * args.num_heads + h) * stride;
    prepare_head(args, row + h * n, args.q_norm, cos_sin, head);
    for (int64_t i = 0; i < n; i += 16) {
      const int lanes = lanes_left(i, n);
      Vec::store_first(y + i, Vec::mul(Vec::load_first(head + i, lanes), scale), lanes);
    }
    if (stride > n) y[n] = 0;
  }
  const float* keys = row + args.num_heads * n;
  const float* values = keys + args.num_kv_heads * n;
  for (int64_t h = 0; h < args.num_kv_heads; ++h) {
    prepare_head(args, keys + h * n, args.k_norm, cos_sin, head);
    write_slot<E>(args, slot, h, head, values + h * n);
  }
}

template <typename P, typename E>
AttentionKernels kernels_over() {
  return {prepare_token<P, E>, attend_tile<P, E>};
}

template <typename P>
AttentionKernels kernels_for_pool(KvType type) {
  switch (type) {
    case KvType::kInt8:
      return kernels_over<P, Int8Code>();
    case KvType::kFp8:
      return kernels_over<P, Fp8Code>();
    case KvType::kInt4:
      return kernels_over<P, Int4Codes>();
    default:
      return kernels_over<P, uint16_t>();
  }
}

}  // namespace
}  // namespace fdq
