// What attention.cc (plan, scratch, dispatch; built for any machine) hands to attention_kernel.h (built once
// for each instruction set).
#pragma once

#include <cstdint>

#include "fdq/ops.h"

namespace fdq {

// Positions of one softmax step; steps begin at absolute multiples of it, so that where a prefill was cut
// changes nothing.
constexpr int kAttentionChunk = 128;
constexpr int kBlocksPerChunk = kAttentionChunk / kKvBlockSize;

// Where a token's key and value go.
struct KvSlot {
  int64_t block;
  int offset;  // in the block
};

// Query rows of one sequence that share a KV head. Row r is token r / group, head r % group of that KV head,
// group = num_heads / num_kv_heads.
struct AttentionTile {
  int64_t sequence;
  int64_t kv_head;
  int64_t first_row;
  int64_t rows;
};

// Floats of scratch a tile needs; every part of it starts at a multiple of 16 floats.
struct TileScratch {
  int64_t padded_dim;   // head_dim rounded up to 16
  int64_t state;        // maximum, then sum of each row
  int64_t scores;       // [rows][128]
  int64_t sums;         // [rows][padded_dim]
  int64_t keys;         // blocks in the form that is multiplied, key_block apart
  int64_t values;       // the same, value_block apart
  int64_t key_block;    // [head_dim][16]
  int64_t value_block;  // [16][padded_dim]
  int64_t floats;
};

// Kernels of one instruction set for one type of pool.
struct AttentionKernels {
  // Normalizes and rotates token t: queries, times the scale, to q [tokens][num_heads][head_dim] in the
  // kernels' own element; key and value to the pool. head: [head_dim] of scratch.
  void (*prepare)(const AttentionArgs& args, int64_t t, const KvSlot& slot, void* q, float* head);
  void (*attend)(const AttentionArgs& args, const void* q, const AttentionTile& tile,
                 const TileScratch& layout, float* scratch);
};

AttentionKernels attention_kernels_scalar(KvType pool);
AttentionKernels attention_kernels_avx2(KvType pool);
AttentionKernels attention_kernels_avx512(KvType pool);
// Rounds queries and softmax weights to bfloat16; not for a float32 pool.
AttentionKernels attention_kernels_avx512bf16(KvType pool);

}  // namespace fdq
