// y = x W^T with e4m3 on both sides for at most 64 tokens, for Hopper (sm_90a): bound by the memory that W is
// read from. W's rows are the 64 rows of wgmma and tokens its columns, so that no product is spent on padding
// beyond 8 tokens. One block a multiprocessor keeps up to 200 KB of W under way by TMA.
//
// Blocks share the work evenly, down to 128 k of 128 rows (Stream-K, Osama et al. 2023): the sums of a tile
// that several blocks have parts of are added in the order of k by the last of them. Which block has what
// depends on W and the device alone, so a token's result does not depend on the others.
#include "cuda/fp8_linear.cuh"
#include "cuda/fp8_linear_store.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/stage_ring.cuh"

namespace fdq::cuda {
namespace {

constexpr int kBlockK = 128;
constexpr int kConsumers = 2;
constexpr int kWarpgroupRows = 64;
constexpr int kRows = kConsumers * kWarpgroupRows;  // of W, a tile; those of a scale
constexpr int kConsumerThreads = kConsumers * ptx::kWarpgroup;
constexpr int kThreads = kConsumerThreads + ptx::kWarp;
constexpr int kConsumerBarrier = 1;
constexpr int kSharedBytes = 227 * 1024;
constexpr int kMostStages = 12;
constexpr int kLeastUnits = 4;    // of a block, else sharing costs more than it gains
constexpr int kPartsOfBlock = 2;  // tiles that a block shares with others: its first and its last

template <int kWidth>
struct Shape {
  static constexpr int kTokens = kWidth;
  static constexpr int kSums = kTokens / 2;  // of a thread
  static constexpr int kPartsAtOnce = kSums < 16 ? 8 : 4;
  static constexpr int kWBytes = kRows * kBlockK;
  static constexpr int kXBytes = kTokens * kBlockK;
  static constexpr int kScaleBytes = kTokens * static_cast<int>(sizeof(float));
  static constexpr int kStageBytes =
      kWBytes + kXBytes + kScaleBytes + 2 * static_cast<int>(sizeof(ptx::Barrier));
  static constexpr int kFitting = (kSharedBytes - 16) / kStageBytes;
  static constexpr int kStages = kFitting < kMostStages ? kFitting : kMostStages;
  static constexpr int kXAt = kStages * kWBytes;
  static constexpr int kScaleAt = kXAt + kStages * kXBytes;
  static constexpr int kBarrierAt = kScaleAt + kStages * kScaleBytes;
  static constexpr int kFlagAt = kBarrierAt + 2 * kStages * static_cast<int>(sizeof(ptx::Barrier));
  static constexpr int kTotal = kFlagAt + 16;
  static constexpr int64_t kPartFloats = static_cast<int64_t>(kSums) * kConsumerThreads;
  static_assert(kTotal <= kSharedBytes && kXBytes % 1024 == 0);
};

struct Parameters : Fp8Product {
  float* parts;                // [blocks][kPartsOfBlock][kPartFloats]
  uint32_t* counters;          // [row tiles], 0
  int units, units_per_block;  // of 128 k of a tile
};

template <typename S>
struct Stages : StageRing<S> {
  __device__ __forceinline__ unsigned char* w() const { return this->base + this->at * S::kWBytes; }
};

template <typename S, bool kGroups>
__device__ __forceinline__ void produce(Stages<S> stages, const TensorMap* x_map, const TensorMap* w_map,
                                        const Parameters& p, int begin, int end) {
  const auto scale_bytes = static_cast<uint32_t>(
      !kGroups ? 0 : (p.x_scale_stride < S::kTokens ? p.x_scale_stride : S::kTokens) * sizeof(float));
  int row = begin / p.k_blocks * kRows, block = begin % p.k_blocks;
  for (int unit = begin; unit < end; ++unit, stages.advance()) {
    ptx::barrier_wait(stages.empty(), stages.phase ^ 1);
    ptx::barrier_arrive_expect(stages.full(), S::kWBytes + S::kXBytes + scale_bytes);
    ptx::tma_load(stages.w(), w_map, stages.full(), row, block * kBlockK, ptx::kEvictFirst);
    ptx::tma_load(stages.x(), x_map, stages.full(), 0, block * kBlockK, ptx::kEvictLast);
    if constexpr (kGroups) {
      ptx::bulk_load(stages.scales(), p.x_scales + block * p.x_scale_stride, scale_bytes, stages.full());
    }
    if (++block == p.k_blocks) {
      block = 0;
      row += kRows;
    }
  }
}

// Adds one unit to the sums, scaled by the scales of its group.
template <typename S, bool kGroups>
__device__ __forceinline__ void add_unit(float (&sum)[S::kSums], const Stages<S>& stages, float w_scale,
                                         int warpgroup) {
  ptx::barrier_wait(stages.full(), stages.phase);
  const uint64_t w = ptx::wgmma_operand(stages.w() + warpgroup * kWarpgroupRows * kBlockK);
  const uint64_t x = ptx::wgmma_operand(stages.x());
  float part[S::kSums];
  ptx::wgmma_pin(part);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kBlockK / 32; ++step) {
    ptx::Wgmma<S::kTokens>::e4m3(part, ptx::wgmma_advance(w, 32 * step), ptx::wgmma_advance(x, 32 * step),
                                 step != 0);
  }
  ptx::wgmma_commit();
  float scale[S::kSums / 2];  // of the tokens 8 j + 2 t and the next
#pragma unroll
  for (int i = 0; i < S::kSums / 2; ++i) {
    const int token = i / 2 * 8 + ptx::lane() % 4 * 2 + i % 2;
    scale[i] = kGroups ? stages.scales()[token] * w_scale : 1.0f;
  }
  ptx::wgmma_wait<0>();
  ptx::wgmma_pin(part);
  ptx::sync_warp();
  if (ptx::lane() == 0) ptx::barrier_arrive(stages.empty());
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) sum[i] += part[i] * scale[i / 4 * 2 + i % 2];
}

template <typename S, bool kGroups>
__device__ __forceinline__ void store(const float (&sum)[S::kSums], int tile, const Parameters& p) {
  const int first_row = tile * kRows + ptx::warp() * 16 + ptx::lane() / 4;
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) {
    const int row = first_row + i / 2 % 2 * 8;
    const int token = i / 4 * 8 + ptx::lane() % 4 * 2 + i % 2;
    if (row >= p.n || token >= p.tokens) continue;
    store_fp8<kGroups>(sum[i], token, row, p);
  }
}

// Where a block keeps its part of a tile: the one that its work begins in, or the one that it ends in.
template <typename S>
__device__ __forceinline__ float* part_of(const Parameters& p, int block, int tile) {
  const bool is_first = block * p.units_per_block / p.k_blocks == tile;
  return p.parts + (static_cast<int64_t>(block) * kPartsOfBlock + (is_first ? 0 : 1)) * S::kPartFloats;
}

// Leaves this block's part; the last of the tile's blocks adds all of them into `sum` and returns true.
template <typename S>
__device__ __forceinline__ bool combine(float (&sum)[S::kSums], int tile, const Parameters& p,
                                        uint32_t* flag) {
  const int first = tile * p.k_blocks / p.units_per_block;
  const int last = ((tile + 1) * p.k_blocks - 1) / p.units_per_block;
  float* mine = part_of<S>(p, static_cast<int>(blockIdx.x), tile) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) mine[i * kConsumerThreads] = sum[i];
  const auto sync = [] { ptx::named_barrier_sync(kConsumerBarrier, kConsumerThreads); };
  const bool is_last = is_last_block(p.counters + tile, last - first + 1, flag, sync);
  sync();  // the flag may be written again
  if (!is_last) return false;
#pragma unroll
  for (int i = 0; i < S::kSums; ++i) sum[i] = 0.0f;
  // Several parts are under way at a time: small matrices have many of them a tile.
#pragma unroll(S::kPartsAtOnce)
  for (int block = first; block <= last; ++block) {
    const float* part = part_of<S>(p, block, tile) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < S::kSums; ++i) sum[i] += part[i * kConsumerThreads];
  }
  return true;
}

template <typename S, bool kGroups>
__device__ __forceinline__ void consume(Stages<S> stages, const Parameters& p, int begin, int end) {
  auto* flag = reinterpret_cast<uint32_t*>(stages.base + S::kFlagAt);
  const int warpgroup = ptx::warp() / 4;
  for (int unit = begin; unit < end;) {
    const int tile = unit / p.k_blocks;
    const int tile_end = (tile + 1) * p.k_blocks;
    const int stop = tile_end < end ? tile_end : end;
    const bool is_whole = unit == tile * p.k_blocks && stop == tile_end;
    const float* w_scales = p.w_scales + unit;  // [row tiles][k_blocks], where they are of groups
    float sum[S::kSums] = {};
    for (; unit < stop; ++unit, ++w_scales, stages.advance()) {
      const float w_scale = kGroups ? *w_scales : 1.0f;
      add_unit<S, kGroups>(sum, stages, w_scale, warpgroup);
    }
    if (is_whole || combine<S>(sum, tile, p, flag)) store<S, kGroups>(sum, tile, p);
  }
}

template <typename S, bool kGroups>
__global__ void __launch_bounds__(kThreads, 1)
    fp8_linear_skinny_kernel(const __grid_constant__ TensorMap x_map, const __grid_constant__ TensorMap w_map,
                             const Parameters p) {
  Stages<S> stages{{shared_memory()}};
  if (threadIdx.x == 0) {
    ptx::tma_prefetch_map(&x_map);
    ptx::tma_prefetch_map(&w_map);
    stages.init(kConsumerThreads / ptx::kWarp);
  }
  ptx::sync_block();
  const int begin = static_cast<int>(blockIdx.x) * p.units_per_block;
  const int end = begin + p.units_per_block < p.units ? begin + p.units_per_block : p.units;
  if (ptx::warp() == kConsumerThreads / ptx::kWarp) {
    if (ptx::elect()) produce<S, kGroups>(stages, &x_map, &w_map, p, begin, end);
  } else {
    consume<S, kGroups>(stages, p, begin, end);
  }
}

struct Share {
  int64_t units, units_per_block, blocks;
};
Share share_units(const Weight& w, int multiprocessors) {
  const int64_t units = ceil_div(w.n, kRows) * ceil_div(w.k, kBlockK);
  int64_t per_block = ceil_div(units, multiprocessors);
  if (per_block < kLeastUnits) per_block = kLeastUnits;
  return {units, per_block, ceil_div(units, per_block)};
}

template <int kTokens, bool kGroups>
Error launch_width(const Fp8LinearArgs& args, Parameters p, int64_t blocks, void* stream) {
  using S = Shape<kTokens>;
  const auto k = static_cast<uint64_t>(args.weight.k);
  TensorMap x_map{}, w_map{};
  const TensorMapSpec x{args.x,
                        MapElement::kByte,
                        static_cast<uint64_t>(args.tokens),
                        k,
                        static_cast<uint64_t>(args.x_stride),
                        kTokens,
                        kBlockK,
                        Swizzle::k128};
  if (const Error error = make_tensor_map(x, &x_map)) return error;
  const TensorMapSpec w{args.weight.codes,
                        MapElement::kByte,
                        static_cast<uint64_t>(args.weight.n),
                        k,
                        static_cast<uint64_t>(padded_k(args.weight.k)),
                        kRows,
                        kBlockK,
                        Swizzle::k128};
  if (const Error error = make_tensor_map(w, &w_map)) return error;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(blocks));
  shape.block = dim3(kThreads);
  shape.shared_bytes = S::kTotal;
  return launch(fp8_linear_skinny_kernel<S, kGroups>, shape, stream, x_map, w_map, p);
}

template <bool kGroups>
Error launch_groups(const Fp8LinearArgs& args, const Parameters& p, int64_t blocks, void* stream) {
  if (args.tokens <= 8) return launch_width<8, kGroups>(args, p, blocks, stream);
  if (args.tokens <= 16) return launch_width<16, kGroups>(args, p, blocks, stream);
  if (args.tokens <= 32) return launch_width<32, kGroups>(args, p, blocks, stream);
  return launch_width<64, kGroups>(args, p, blocks, stream);
}

}  // namespace

WorkspaceSize fp8_linear_skinny_workspace(const Fp8LinearArgs& args, int multiprocessors) {
  const Share share = share_units(args.weight, multiprocessors);
  const int64_t width = args.tokens <= 8    ? 8
                        : args.tokens <= 16 ? 16
                        : args.tokens <= 32 ? 32
                                            : kSkinnyTokens;
  return {counter_bytes(ceil_div(args.weight.n, kRows)),
          share.blocks * kPartsOfBlock * kRows * width * static_cast<int64_t>(sizeof(float))};
}

Error fp8_linear_skinny(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  const Share share = share_units(args.weight, multiprocessors);
  Parameters p{};
  static_cast<Fp8Product&>(p) = describe_product(args);
  p.counters = args.workspace.counters;
  p.parts = args.workspace.partials;
  p.units = static_cast<int>(share.units);
  p.units_per_block = static_cast<int>(share.units_per_block);
  return args.rule == ActivationRule::kE4M3Group128 ? launch_groups<true>(args, p, share.blocks, stream)
                                                    : launch_groups<false>(args, p, share.blocks, stream);
}

}  // namespace fdq::cuda
