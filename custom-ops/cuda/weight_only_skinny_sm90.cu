// y = x W^T with int8 or int4 weights for few tokens, for Hopper (sm_90a): bound by the memory that W is read
// from. One block a multiprocessor keeps 96 KB or more of W under way by TMA; with many tokens half of that.
//
// Blocks share the work evenly, down to one unit of k of a tile of rows (Stream-K, Osama et al. 2023): the
// sums of a tile that several blocks have parts of are added in the order of k by the last of them. Which
// block has what depends on W, the device and the kernel's width alone, so a token's result does not depend
// on the others, and is the same for 1 .. 64 tokens, and for 65 and more.
//
// Two blocks with neighbouring tiles go through the same k. With more than 16 tokens they are a cluster, and
// each brings half of x to both: with 64 tokens x is as many bytes as int4 codes, and L2 would be the bound.
#include "cuda/weight_only.cuh"
#include "cuda/weight_only_wgmma.cuh"

namespace fdq::cuda {
namespace {

constexpr int kConsumerBarrier = 1;
constexpr int kPartsOfBlock = 2;  // tiles that a block shares with others: its first and its last
constexpr int kLeastUnits = 2;    // of a block, else sharing costs more than it gains
constexpr int kReserved = 128;    // a flag

struct alignas(16) Four {
  float value[4];
};

struct Streaming {
  WeightOnlyProduct product;
  Four* parts;                     // [token tiles][blocks][kPartsOfBlock][kSums / 4][consumer threads]
  uint32_t* counters;              // [token tiles][row tiles], 0
  int pair;                        // 1 or 2 blocks in step
  int all_units, units_per_block;  // of a pair: those of a tile of each of its blocks
};

template <typename S>
constexpr int64_t kPartFloats = static_cast<int64_t>(S::kSums) * S::kConsumerThreads;

// Blocks are launched as clusters.
template <typename S>
__host__ __device__ __forceinline__ bool is_cluster(int pair) {
  return S::kTokens > 16 && pair == 2;
}

// Of this block's pair, and of the block in it.
__device__ __forceinline__ int pair_index(const Streaming& p) {
  return static_cast<int>(blockIdx.x) >> (p.pair - 1);
}
__device__ __forceinline__ int pair_rank(const Streaming& p) {
  return static_cast<int>(blockIdx.x) & (p.pair - 1);
}
__device__ __forceinline__ int first_unit(const Streaming& p) { return pair_index(p) * p.units_per_block; }
__device__ __forceinline__ int last_unit(const Streaming& p) {  // past it
  const int end = first_unit(p) + p.units_per_block;
  return end < p.all_units ? end : p.all_units;
}

template <typename S>
__device__ __forceinline__ void produce(WeightOnlyStages<S> stages, const WeightOnlyMaps& maps,
                                        const Streaming& p) {
  const int token = static_cast<int>(blockIdx.y) * S::kTokens;
  const int rank = pair_rank(p);
  const uint64_t policy = gridDim.y == 1 ? ptx::kEvictFirst : ptx::kEvictNormal;
  const int begin = first_unit(p), end = last_unit(p);
  int panel = (begin / p.product.units * p.pair + rank) * S::kPanels, unit = begin % p.product.units;
  for (int i = begin; i < end; ++i, stages.advance()) {
    ptx::barrier_wait(stages.empty(), stages.phase ^ 1);
    ptx::barrier_arrive_expect(stages.full(), p.product.unit_bytes);
    copy_weight<S>(stages, maps, p.product, panel, unit, policy);
#pragma unroll
    for (int chunk = 0; chunk < S::kChunks; ++chunk) {
      unsigned char* x = stages.x() + chunk * S::kXBoxBytes;
      const int k = (unit * S::kChunks + chunk) * kChunkK;
      if (is_cluster<S>(p.pair)) {
        ptx::tma_load_multicast(x + rank * (S::kXBoxBytes / 2), &maps.x, stages.full(),
                                token + rank * (S::kTokens / 2), k, 3, ptx::kEvictLast);
      } else {
        ptx::tma_load(x, &maps.x, stages.full(), token, k, ptx::kEvictLast);
      }
    }
    if (++unit == p.product.units) {
      unit = 0;
      panel += p.pair * S::kPanels;
    }
  }
}

// Where block `block` of the pairs keeps its part of a tile: the one that its work begins in, or the one that
// it ends in.
template <typename S>
__device__ __forceinline__ Four* part_of(const Streaming& p, int block, int tile) {
  const bool is_first = block * p.units_per_block / p.product.units == tile;
  const int rank = pair_rank(p);
  const int64_t index =
      (static_cast<int64_t>(blockIdx.y) * gridDim.x + block * p.pair + rank) * kPartsOfBlock +
      (is_first ? 0 : 1);
  return p.parts + index * (kPartFloats<S> / 4) + threadIdx.x;
}

// Leaves this block's part; the last of the tile's blocks adds all of them into `sum` and returns true.
template <typename S>
__device__ __forceinline__ bool combine(float (&sum)[S::kSums], int tile, const Streaming& p,
                                        uint32_t* flag) {
  const int units = p.product.units;
  const int first = tile * units / p.units_per_block;
  const int last = ((tile + 1) * units - 1) / p.units_per_block;
  Four* mine = part_of<S>(p, pair_index(p), tile);
#pragma unroll
  for (int i = 0; i < S::kSums; i += 4) {
    mine[i / 4 * S::kConsumerThreads] = {{sum[i], sum[i + 1], sum[i + 2], sum[i + 3]}};
  }
  uint32_t* counter = p.counters + (blockIdx.y * (p.all_units / units) + tile) * p.pair + pair_rank(p);
  const auto sync = [] { ptx::named_barrier_sync(kConsumerBarrier, S::kConsumerThreads); };
  const bool is_last = is_last_block(counter, last - first + 1, flag, sync);
  sync();  // the flag may be written again
  if (!is_last) return false;
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) sum[i] = 0.0f;
  for (int block = first; block <= last; ++block) {
    const Four* part = part_of<S>(p, block, tile);
#pragma unroll
    for (int i = 0; i < S::kSums; i += 4) {
      const Four four = part[i / 4 * S::kConsumerThreads];
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i + j] += four.value[j];
    }
  }
  return true;
}

template <typename S>
__device__ __forceinline__ void consume(WeightOnlyStages<S> stages, const Streaming& p) {
  auto* flag = reinterpret_cast<uint32_t*>(stages.base + S::kReservedAt);
  const int units = p.product.units, rank = pair_rank(p);
  const int cluster = is_cluster<S>(p.pair) ? 2 : 1;
  const int end = last_unit(p);
  for (int i = first_unit(p); i < end;) {
    const int tile = i / units;
    const int tile_end = (tile + 1) * units;
    const int stop = tile_end < end ? tile_end : end;
    const bool is_whole = i == tile * units && stop == tile_end;
    WeightOnlySums<S> sums;
    sums.start(i - tile * units, p.product);
    for (; i < stop; ++i, stages.advance()) {
      ptx::barrier_wait(stages.full(), stages.phase);
      multiply_unit<S>(sums, stages, p.product, i + 1 == stop);
      stages.release(cluster);
    }
    if (is_whole || combine<S>(sums.sum, tile, p, flag)) {
      store_elements<S>(sums.sum, (tile * p.pair + rank) * S::kRows,
                        static_cast<int>(blockIdx.y) * S::kTokens, p.product);
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    weight_only_skinny_kernel(const __grid_constant__ WeightOnlyMaps maps, const Streaming p) {
  WeightOnlyStages<S> stages{{shared_memory()}};
  const bool in_cluster = is_cluster<S>(p.pair);
  if (threadIdx.x == 0) {
    ptx::tma_prefetch_map(&maps.x);
    ptx::tma_prefetch_map(&maps.codes);
    ptx::tma_prefetch_map(&maps.scales);
    stages.init(S::kConsumerThreads / ptx::kWarp * (in_cluster ? 2 : 1));
  }
  if (in_cluster) {
    ptx::sync_cluster();
  } else {
    ptx::sync_block();
  }
  if (ptx::warp() / 4 == S::kConsumers) {
    ptx::set_max_registers_down<S::kProducerRegisters>();
    if (ptx::warp() % 4 == 0 && ptx::elect()) produce<S>(stages, maps, p);
    ptx::sync_warp();
  } else {
    ptx::set_max_registers_up<S::kConsumerRegisters>();
    consume<S>(stages, p);
  }
  // The other block may still arrive at barriers here.
  if (in_cluster) ptx::sync_cluster();
}

// Few tokens: int4 is bound by the warps that expand it, so there are four warpgroups of them. Many: what is
// left of the registers are sums.
template <WeightFormat kFormat, bool kFloat16, bool kNarrow, int kTokens>
using Shape = WeightOnlyShape<kFormat, kFloat16, kNarrow, kTokens <= 64 ? 4 : 2, kTokens,
                              kTokens <= 64 || kFormat == WeightFormat::kInt8 ? 2 : 1, kReserved>;

// Of pairs of blocks and of their tiles.
struct Share {
  int pair;
  int64_t tiles, all_units, per_block, blocks;
};
template <typename S>
Share share_units(const Weight& w, int multiprocessors) {
  const int64_t row_tiles = ceil_div(w.n, S::kRows);
  const int pair = row_tiles % 2 == 0 && multiprocessors >= 2 ? 2 : 1;
  const int64_t tiles = row_tiles / pair, all = tiles * ceil_div(w.k, S::kUnitK);
  int64_t per_block = ceil_div(all, multiprocessors / pair);
  if (per_block < kLeastUnits) per_block = kLeastUnits;
  return {pair, tiles, all, per_block, ceil_div(all, per_block)};
}

template <typename S>
WorkspaceSize plan_workspace(const WeightOnlyArgs& args, int multiprocessors) {
  const Share share = share_units<S>(args.weight, multiprocessors);
  const int64_t groups = ceil_div(args.tokens, S::kTokens) * share.pair;
  return {counter_bytes(groups * share.tiles),
          groups * share.blocks * kPartsOfBlock * kPartFloats<S> * static_cast<int64_t>(sizeof(float))};
}

template <typename S>
Error launch_shape(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  const Share share = share_units<S>(args.weight, multiprocessors);
  Streaming p{};
  p.counters = args.workspace.counters;
  p.parts = reinterpret_cast<Four*>(args.workspace.partials);
  p.pair = share.pair;
  p.all_units = static_cast<int>(share.all_units);
  p.units_per_block = static_cast<int>(share.per_block);
  const int cluster = is_cluster<S>(share.pair) ? 2 : 1;
  WeightOnlyMaps maps{};
  if (const Error error = describe_weight_only<S>(args, S::kTokens / cluster, maps, p.product)) return error;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(share.blocks * share.pair),
                    static_cast<unsigned>(ceil_div(args.tokens, S::kTokens)));
  shape.block = dim3(S::kThreads);
  shape.shared_bytes = S::kTotal;
  shape.cluster = static_cast<unsigned>(cluster);
  return launch(weight_only_skinny_kernel<S>, shape, stream, maps, p);
}

// Calls `visit` with the shape for these arguments.
template <WeightFormat kFormat, bool kFloat16, bool kNarrow, typename Visit>
auto visit_tokens(int64_t tokens, const Visit& visit) {
  if (tokens <= kWeightOnlyShapeTokens[0]) return visit(Shape<kFormat, kFloat16, kNarrow, 16>{});
  if (tokens <= kWeightOnlyShapeTokens[1]) return visit(Shape<kFormat, kFloat16, kNarrow, 32>{});
  if (tokens <= kWeightOnlyShapeTokens[2]) return visit(Shape<kFormat, kFloat16, kNarrow, 64>{});
  return visit(Shape<kFormat, kFloat16, kNarrow, 128>{});
}
template <WeightFormat kFormat, typename Visit>
auto visit_format(const WeightOnlyArgs& args, const Visit& visit) {
  const bool is_narrow = args.weight.group_k == kNarrowGroup;
  if (args.x_element == ElementType::kFloat16) {
    return is_narrow ? visit_tokens<kFormat, true, true>(args.tokens, visit)
                     : visit_tokens<kFormat, true, false>(args.tokens, visit);
  }
  return is_narrow ? visit_tokens<kFormat, false, true>(args.tokens, visit)
                   : visit_tokens<kFormat, false, false>(args.tokens, visit);
}
template <typename Visit>
auto visit_shape(const WeightOnlyArgs& args, const Visit& visit) {
  return args.weight.format == WeightFormat::kInt4 ? visit_format<WeightFormat::kInt4>(args, visit)
                                                   : visit_format<WeightFormat::kInt8>(args, visit);
}

}  // namespace

WorkspaceSize weight_only_skinny_workspace(const WeightOnlyArgs& args, int multiprocessors) {
  return visit_shape(args,
                     [&](auto shape) { return plan_workspace<decltype(shape)>(args, multiprocessors); });
}

Error weight_only_skinny(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  return visit_shape(
      args, [&](auto shape) { return launch_shape<decltype(shape)>(args, multiprocessors, stream); });
}

}  // namespace fdq::cuda
