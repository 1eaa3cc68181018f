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

namespace fdq {
namespace {

template <typename E>
E* block_base(const KvPool& pool, int64_t layer, int64_t block, int64_t head, bool values) {
  const int64_t heads = pool.num_kv_heads;
  const int64_t index = ((layer * pool.num_blocks + block) * 2 + (values ? 1 : 0)) * heads + head;
  return static_cast<E*>(pool.base) + index * kKvBlockSize * pool.head_dim;
}

// Blocks of one step, as stored or widened; null where no row looks. Streamed blocks are read once and
// straight from the pool: scoring fetches their values, and adding those fetches the keys of the next step,
// at the same offsets. Blocks lie anywhere, so the hardware's prefetchers would begin anew at each.
template <typename T, bool streamed>
struct Step {
  using E = T;
  static constexpr bool kStreamed = streamed;
  const E* keys[kBlocksPerChunk];
  const E* values[kBlocksPerChunk];
  const E* next_keys[kBlocksPerChunk];  // a key block of the next step, or any other address
  int64_t value_stride;                 // elements from one position's value to the next
};

inline void fetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// Positions of the step that a row sees: [from, to), empty when from >= to.
struct Span {
  int from, to;
};

}  // namespace
}  // namespace fdq
