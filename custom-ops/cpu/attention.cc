#include "cpu/attention.h"

#include <vector>

#include "cpu/scratch.h"

namespace fdq {
namespace {

constexpr int64_t kTileRows = 64;    // query rows that share one widened step of keys and values
constexpr int64_t kMinTileRows = 8;  // rows that decode together; never split further
constexpr int64_t kItemsPerThread = 4;
constexpr int64_t kTokensPerItem = kKvBlockSize;  // threads meet at block borders of a fresh prefill

thread_local Scratch t_queries;
thread_local Scratch t_worker;
thread_local std::vector<KvSlot> t_slots;
thread_local std::vector<AttentionTile> t_tiles;

AttentionKernels kernels_of(Isa isa, ComputeType compute, KvType pool) {
#if defined(__x86_64__)
  const bool rounds = compute == ComputeType::kBFloat16 && pool != KvType::kFloat32;
  if (rounds && isa >= Isa::kAvx512Bf16) return attention_kernels_avx512bf16(pool);
  if (isa >= Isa::kAvx512) return attention_kernels_avx512(pool);
  if (isa == Isa::kAvx2) return attention_kernels_avx2(pool);
#else
  (void)isa, (void)compute;
#endif
  return attention_kernels_scalar(pool);
}

void find_slots(const AttentionArgs& args, std::vector<KvSlot>* slots) {
  slots->clear();
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t tokens = args.query_starts[s + 1] - args.query_starts[s];
    for (int64_t i = 0; i < tokens; ++i) {
      const int64_t position = args.context_lengths[s] - tokens + i;
      const int64_t block = args.block_tables[s * args.block_table_stride + position / kKvBlockSize];
      slots->push_back({block, static_cast<int>(position % kKvBlockSize)});
    }
  }
}

int64_t sequence_rows(const AttentionArgs& args, int64_t s) {
  return (args.query_starts[s + 1] - args.query_starts[s]) * (args.num_heads / args.num_kv_heads);
}

int64_t choose_tile_rows(const AttentionArgs& args, int num_threads) {
  int64_t rows = kTileRows;
  for (; rows > kMinTileRows; rows /= 2) {
    int64_t items = 0;
    for (int64_t s = 0; s < args.sequences; ++s) items += ceil_div(sequence_rows(args, s), rows);
    if (items * args.num_kv_heads >= kItemsPerThread * num_threads || num_threads == 1) break;
  }
  return rows;
}

// Later rows see more positions. Tiles come from both ends in turn, so that any contiguous share of them is
// about the same work.
void plan_tiles(const AttentionArgs& args, int num_threads, std::vector<AttentionTile>* tiles) {
  tiles->clear();
  const int64_t tile_rows = choose_tile_rows(args, num_threads);
  for (int64_t s = 0; s < args.sequences; ++s) {
    const int64_t rows = sequence_rows(args, s);
    const int64_t count = ceil_div(rows, tile_rows);
    for (int64_t h = 0; h < args.num_kv_heads; ++h) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t first = (i % 2 == 0 ? i / 2 : count - 1 - i / 2) * tile_rows;
        tiles->push_back({s, h, first, rows - first < tile_rows ? rows - first : tile_rows});
      }
    }
  }
}

TileScratch lay_out(const AttentionArgs& args, int64_t rows) {
  TileScratch layout{};
  layout.padded_dim = round_up(args.head_dim, 16);
  layout.state = 0;
  layout.scores = round_up(2 * rows, 16);
  layout.sums = layout.scores + rows * kAttentionChunk;
  layout.keys = layout.sums + rows * layout.padded_dim;
  layout.key_block = round_up(args.head_dim, 2) * kKvBlockSize;
  layout.value_block = layout.padded_dim * kKvBlockSize;
  layout.values = layout.keys + kBlocksPerChunk * layout.key_block;
  layout.floats = layout.values + kBlocksPerChunk * layout.value_block;
  return layout;
}

}  // namespace

void paged_attention(const AttentionArgs& args, Isa isa, const Parallel& parallel) {
  if (args.tokens == 0) return;
  const AttentionKernels kernels = kernels_of(isa, args.compute, args.pool.type);
  // The pool's threads have their own thread_local objects: they are handed these by pointer.
  std::vector<KvSlot>& slots = t_slots;
  std::vector<AttentionTile>& tiles = t_tiles;
  find_slots(args, &slots);
  plan_tiles(args, parallel.num_threads, &tiles);
  float* q = t_queries.floats(args.tokens * args.num_heads * args.head_dim);

  parallel(ceil_div(args.tokens, kTokensPerItem), [&](int64_t item) {
    float* head = t_worker.floats(round_up(args.head_dim, 16));
    const int64_t first = item * kTokensPerItem;
    const int64_t last = first + kTokensPerItem < args.tokens ? first + kTokensPerItem : args.tokens;
    for (int64_t t = first; t < last; ++t) kernels.prepare(args, t, slots[static_cast<size_t>(t)], q, head);
  });

  const TileScratch layout = lay_out(args, kTileRows);
  parallel(static_cast<int64_t>(tiles.size()), [&](int64_t item) {
    kernels.attend(args, q, tiles[static_cast<size_t>(item)], layout, t_worker.floats(layout.floats));
  });
}

}  // namespace fdq
