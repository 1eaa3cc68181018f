// The parts of a pool that one softmax step looks at, and what multiplying them must offer. Include after one
// of vector_math_*.h.
//
// Products (attention_float.h, attention_pairs.h) say how queries meet keys and weights meet values:
//   Query           element of a prepared query, and of a softmax weight as it is multiplied
//   Staged          element of a block brought into the form that is multiplied
//   kUnit           positions multiplied together; a shared span begins and ends at a multiple of it
//   query_stride    elements from one query head to the next
//   store_weights   16 weights from p on as they are multiplied; gives their values
//   stage_keys, stage_values   a block of the pool -> Staged. Another type of pool needs these two for its
//                   element, and reads below if it is to be streamed
//   score_columns   scores of R rows and C blocks
//   add_value_columns   sums += weights x values of R rows and C columns of 16 entries
#pragma once

#include <cstdint>

#include "cpu/attention.h"
#include "cpu/kv_codes.h"

namespace fdq {
namespace {

// What kv_lanes_*.h offer for quantized elements. Entry d of 16 positions:
inline Vec load_keys(const float* block, int64_t d) { return Vec::load(block + d * kKvBlockSize); }
inline Vec load_keys(const uint16_t* block, int64_t d) { return Vec::load(block + d * kKvBlockSize); }
// 16 entries of one position:
inline Vec load_values(const float* row) { return Vec::load(row); }
inline Vec load_values(const uint16_t* row) { return Vec::load(row); }
// The same where only the first n exist; quantized records are padded.
template <typename E>
Vec load_values(const E* row, int n) {
  if constexpr (KvElement<E>::kQuantized) {
    return load_values(row);
  } else {
    return Vec::load_first(row, n);
  }
}

// Blocks of one step, as stored or widened; null where no row looks. Streamed blocks are read once and
// straight from the pool: scoring fetches their values, and adding those fetches the keys of the next step,
// at the same offsets. Blocks lie anywhere, so the hardware's prefetchers would begin anew at each.
template <typename T, bool streamed, typename Pool>
struct Step {
  using E = T;
  using PoolElement = Pool;
  static constexpr bool kStreamed = streamed;
  static constexpr bool kScaled = KvElement<Pool>::kQuantized;
  // Of the element that holds the first of the entries from i on.
  static int64_t index(int64_t i) { return streamed ? KvElement<Pool>::index(i) : i; }
  const E* keys[kBlocksPerChunk];
  const E* values[kBlocksPerChunk];
  const E* next_keys[kBlocksPerChunk];  // a key block of the next step, or any other address
  int64_t value_stride;                 // elements from one position's value to the next
  // Of quantized pools, [16]: a score is multiplied by its key's, a softmax weight by its value's, each times
  // the pool element's kUnit.
  const float* key_scales[kBlocksPerChunk];
  const float* value_scales[kBlocksPerChunk];
};

inline void fetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// Positions of the step that a row sees: [from, to), empty when from >= to.
struct Span {
  int from, to;
};

}  // namespace
}  // namespace fdq
