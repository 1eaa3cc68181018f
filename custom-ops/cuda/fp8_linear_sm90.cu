// y = x W^T with e4m3 on both sides, for Hopper (sm_90a): persistent blocks, one warpgroup that copies by
// TMA, two that multiply by wgmma. Sums of 128 k leave the tensor core's accumulator, which keeps fewer than
// 32 bits for fp8, and are added in float32 with their scales. The structure is that of DeepGEMM (DeepSeek,
// 2025) and of CUTLASS' warp-specialized persistent kernels.
#include "cuda/fp8_linear_epilogue.cuh"

namespace fdq::cuda {
namespace {

using namespace tiles;

constexpr int kThreads = (kConsumers + 1) * ptx::kWarpgroup;
constexpr int kConsumerWarps = kConsumers * ptx::kWarpgroup / ptx::kWarp;
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
constexpr int kTurnBarrier = kStoreBarrier + kConsumers;  // likewise

// Starts the product of the 128 k in `stages`, which have arrived.
template <typename S>
__device__ __forceinline__ void multiply(Sums<S>& part, const Stages<S>& stages, const Place& place) {
  const int wave = place.warpgroup * S::kWaves + place.wave;
  const int x_offset = S::kSplitsTokens ? wave * kWarpgroupTokens * kBlockK : 0;
  const int w_offset = S::kSplitsTokens ? 0 : place.warpgroup * S::kColumns * kBlockK;
  const uint64_t x = ptx::wgmma_operand(stages.x() + x_offset);
  const uint64_t w = ptx::wgmma_operand(stages.w() + w_offset);
  ptx::wgmma_pin(part);
  ptx::wgmma_fence();
#pragma unroll
  for (int step = 0; step < kBlockK / 32; ++step) {
    ptx::Wgmma<S::kColumns>::e4m3(part, ptx::wgmma_advance(x, 32 * step), ptx::wgmma_advance(w, 32 * step),
                                  step != 0);
  }
  ptx::wgmma_commit();
}

// Waits until at most kPending products are under way and adds the one that ended, scaled but for scales of
// rows. The stage is free as soon as it ended, but callers release it behind the sums: over that branch the
// compiler moves none of them behind the next wait.
template <typename S, Scales kScales, int kPending>
__device__ __forceinline__ void promote(Sums<S>& sum, Sums<S>& part, const Stages<S>& stages, float w_scale,
                                        const Place& place) {
  float upper = 1.0f, lower = 1.0f;
  if constexpr (kScales == Scales::kTiles) {
    upper = stages.scales()[place.token] * w_scale;
    lower = stages.scales()[place.token + 8] * w_scale;
  }
  ptx::wgmma_wait<kPending>();
  ptx::wgmma_pin(part);
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; i += 4) {
    sum[i] += part[i] * upper;
    sum[i + 1] += part[i + 1] * upper;
    sum[i + 2] += part[i + 2] * lower;
    sum[i + 3] += part[i + 3] * lower;
  }
  ptx::wgmma_pin(sum);
}

// The warpgroups take turns to start products, so that one adds and stores while those of the other run. Left
// alone both would start, and end, together (as FlashAttention-3, Shah et al. 2024, does for its softmax).
__device__ __forceinline__ void take_turn(int warpgroup) {
  ptx::named_barrier_sync(kTurnBarrier + warpgroup, kConsumers * ptx::kWarpgroup);
}
__device__ __forceinline__ void pass_turn(int warpgroup) {
  ptx::named_barrier_arrive(kTurnBarrier + 1 - warpgroup, kConsumers * ptx::kWarpgroup);
}

// W's scales for the 128 k of a tile from `block` on, two of them; past the end the last one.
struct WScales {
  float value[2];
};
template <Scales kScales>
__device__ __forceinline__ WScales load_w_scales(const Tile& tile, int block, const Parameters& p) {
  if constexpr (kScales == Scales::kRows) return {1.0f, 1.0f};
  const float* row = p.w_scales + static_cast<int64_t>(tile.row / kTile) * p.k_blocks;
  const int last = p.k_blocks - 1;
  return {row[block < last ? block : last], row[block + 1 < last ? block + 1 : last]};
}

// Adds 128 k or, with kPair, twice as many, of which the first are added while the second are multiplied.
template <typename S, Scales kScales, bool kPair>
__device__ __forceinline__ void add_blocks(Sums<S>& sum, Stages<S>& stages, const WScales& w_scales,
                                           const Place& place, int cluster) {
  const Stages<S> first = stages;
  stages.advance();
  const Stages<S> second = stages;
  float part[2][S::kColumns / 2];
  ptx::barrier_wait(first.full(), first.phase);
  if constexpr (kPair) {
    ptx::barrier_wait(second.full(), second.phase);
    stages.advance();
  }
  take_turn(place.warpgroup);
  multiply<S>(part[0], first, place);
  if constexpr (kPair) multiply<S>(part[1], second, place);
  pass_turn(place.warpgroup);
  promote<S, kScales, kPair ? 1 : 0>(sum, part[0], first, w_scales.value[0], place);
  first.release(cluster);
  if constexpr (kPair) {
    promote<S, kScales, 0>(sum, part[1], second, w_scales.value[1], place);
    second.release(cluster);
  }
}

// Adds 128 k of each wave: there are registers for one product only.
template <typename S, Scales kScales>
__device__ __forceinline__ void add_waves(Sums<S> (&sums)[S::kWaves], Stages<S>& stages, float w_scale,
                                          const Place& first, int cluster) {
#pragma unroll
  for (int wave = 0; wave < S::kWaves; ++wave) {
    const Place place = locate_thread<S>(first.warpgroup, wave);
    float part[S::kColumns / 2];
    ptx::barrier_wait(stages.full(), stages.phase);  // each time: it keeps sums out of the next turn
    take_turn(place.warpgroup);
    multiply<S>(part, stages, place);
    pass_turn(place.warpgroup);
    promote<S, kScales, 0>(sums[wave], part, stages, w_scale, place);
  }
  stages.release(cluster);
  stages.advance();
}

// The sums of a tile, in float32, scaled but for scales of rows. `w_scales` are those it begins with; the
// others are loaded one turn ahead, since some come from L2.
template <typename S, Scales kScales>
__device__ __forceinline__ void accumulate(Sums<S> (&sums)[S::kWaves], Stages<S>& stages, WScales w_scales,
                                           int warpgroup, const Tile& tile, const Parameters& p) {
  const Place place = locate_thread<S>(warpgroup, 0);
#pragma unroll
  for (int i = 0; i < S::kWaves * S::kColumns / 2; ++i) sums[i % S::kWaves][i / S::kWaves] = 0.0f;
  constexpr int kStep = S::kWaves > 1 ? 1 : 2;
  int block = 0;
  for (; block + kStep <= p.k_blocks; block += kStep) {
    const WScales now = w_scales;
    w_scales = load_w_scales<kScales>(tile, block + kStep, p);
    if constexpr (S::kWaves > 1) {
      add_waves<S, kScales>(sums, stages, now.value[0], place, p.cluster);
    } else {
      add_blocks<S, kScales, true>(sums[0], stages, now, place, p.cluster);
    }
  }
  if constexpr (S::kWaves == 1) {
    if (block < p.k_blocks) {
      add_blocks<S, kScales, false>(sums[0], stages, w_scales, place, p.cluster);
    }
  }
}

template <typename S, Scales kScales, int kOutputBytes>
__device__ __forceinline__ void consume(Stages<S> stages, const TensorMap* y_map, const Parameters& p,
                                        int rank) {
  const int warpgroup = ptx::warp() / 4;
  const bool stores_by_tma = S::kStagesOutput && p.stores_by_tma;
  if (warpgroup == 1) pass_turn(1);
  Tiles<S> tiles(p, rank);
  Tile next = tiles.tile();
  WScales w_scales = load_w_scales<kScales>(next, 0, p);
  while (tiles.is_left()) {
    const Tile tile = next;
    Sums<S> sums[S::kWaves];
    accumulate<S, kScales>(sums, stages, w_scales, warpgroup, tile, p);
    tiles.advance();
    if (tiles.is_left()) {
      next = tiles.tile();
      w_scales = load_w_scales<kScales>(next, 0, p);
    }
    if (stores_by_tma) wait_for_store(warpgroup);
#pragma unroll
    for (int wave = 0; wave < S::kWaves; ++wave) {
      const Place place = locate_thread<S>(warpgroup, wave);
      finish<S, kScales>(sums[wave], place, tile, p);
      store<S, kOutputBytes>(sums[wave], stages.base, y_map, place, tile, p);
    }
  }
  if (warpgroup == 0) take_turn(0);  // the last one, that no one needs
  if (stores_by_tma && static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0) ptx::tma_store_wait<0>();
}

template <typename S, Scales kScales, int kOutputBytes>
__global__ void __launch_bounds__(kThreads, 1)
    fp8_linear_warpgroup_kernel(const __grid_constant__ TensorMap x_map,
                                const __grid_constant__ TensorMap w_map,
                                const __grid_constant__ TensorMap y_map, const Parameters p) {
  Stages<S> stages{{shared_memory()}};
  const int rank = p.cluster == 1 ? 0 : static_cast<int>(ptx::cluster_rank());
  if (threadIdx.x == 0) {
    ptx::tma_prefetch_map(&x_map);
    ptx::tma_prefetch_map(&w_map);
    if (p.stores_by_tma) ptx::tma_prefetch_map(&y_map);
    stages.init(kConsumerWarps * p.cluster);
  }
  if (p.cluster == 1) {
    ptx::sync_block();
  } else {
    ptx::sync_cluster();
  }
  if (ptx::warp() / 4 == kConsumers) {
    ptx::set_max_registers_down<kProducerRegisters>();
    if (ptx::warp() == kConsumers * 4 && ptx::elect()) produce<S, kScales>(stages, &x_map, &w_map, p, rank);
    ptx::sync_warp();
  } else {
    ptx::set_max_registers_up<kConsumerRegisters>();
    consume<S, kScales, kOutputBytes>(stages, &y_map, p, rank);
  }
  // The other block may still arrive at barriers here.
  if (p.cluster != 1) ptx::sync_cluster();
}

struct Maps {
  TensorMap x, w, y;
};

template <typename S>
Error make_maps(const Fp8LinearArgs& args, Parameters& p, Maps& maps) {
  const Weight& w = args.weight;
  const auto k = static_cast<uint64_t>(w.k);
  const TensorMapSpec x{args.x,
                        MapElement::kByte,
                        static_cast<uint64_t>(args.tokens),
                        k,
                        static_cast<uint64_t>(args.x_stride),
                        S::kTokens / 2,
                        kBlockK,
                        Swizzle::k128};
  if (const Error error = make_tensor_map(x, &maps.x)) return error;
  const TensorMapSpec codes{w.codes,
                            MapElement::kByte,
                            static_cast<uint64_t>(w.n),
                            k,
                            static_cast<uint64_t>(padded_k(w.k)),
                            S::kRows / 2,
                            kBlockK,
                            Swizzle::k128};
  if (const Error error = make_tensor_map(codes, &maps.w)) return error;
  const MapElement element = args.y_element == ElementType::kFloat32   ? MapElement::kFloat32
                             : args.y_element == ElementType::kFloat16 ? MapElement::kFloat16
                                                                       : MapElement::kBFloat16;
  const uint64_t row_bytes = static_cast<uint64_t>(args.y_stride) * map_element_bytes(element);
  p.stores_by_tma = S::kStagesOutput && row_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
  if (!p.stores_by_tma) return nullptr;
  return make_tensor_map({args.y, element, static_cast<uint64_t>(args.tokens), static_cast<uint64_t>(w.n),
                          row_bytes, kWarpgroupTokens, S::kBoxColumns, Swizzle::k128},
                         &maps.y);
}

template <typename S, Scales kScales, int kOutputBytes>
Error launch_shape(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  Parameters p{};
  static_cast<Fp8Product&>(p) = describe_product(args);
  p.token_tiles = static_cast<int>(ceil_div(args.tokens, S::kTokens));
  p.row_tiles = static_cast<int>(ceil_div(args.weight.n, S::kRows));
  const int to_share = S::kSharesX ? p.row_tiles : p.token_tiles;
  p.cluster = S::kSplitsTokens && to_share % 2 == 0 && multiprocessors >= 2 ? 2 : 1;
  Maps maps{};
  if (const Error error = make_maps<S>(args, p, maps)) return error;
  const int64_t tiles = static_cast<int64_t>(p.token_tiles) * p.row_tiles;
  const int64_t blocks = multiprocessors / p.cluster * p.cluster;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(tiles < blocks ? tiles : blocks));
  shape.block = dim3(kThreads);
  shape.shared_bytes = S::kTotal;
  shape.cluster = static_cast<unsigned>(p.cluster);
  return launch(fp8_linear_warpgroup_kernel<S, kScales, kOutputBytes>, shape, stream, maps.x, maps.w, maps.y,
                p);
}

template <int kTokens, int kRows, int kOutputBytes>
Error launch_output(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  using S = Shape<kTokens, kRows, kOutputBytes>;
  return args.rule == ActivationRule::kE4M3Group128
             ? launch_shape<S, Scales::kTiles, kOutputBytes>(args, multiprocessors, stream)
             : launch_shape<S, Scales::kRows, kOutputBytes>(args, multiprocessors, stream);
}

template <int kTokens, int kRows>
Error launch_tile(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  return args.y_element == ElementType::kFloat32
             ? launch_output<kTokens, kRows, 4>(args, multiprocessors, stream)
             : launch_output<kTokens, kRows, 2>(args, multiprocessors, stream);
}

}  // namespace

Error fp8_linear_warpgroup(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  const bool is_wide = args.y_element == ElementType::kFloat32;
  const WarpgroupTile tile = choose_warpgroup_tile(args.tokens, args.weight.n, is_wide, multiprocessors);
  if (tile.tokens == 256) return launch_output<256, 128, 2>(args, multiprocessors, stream);
  if (tile.tokens == 128) return launch_tile<128, 128>(args, multiprocessors, stream);
  if (tile.rows == 64) return launch_tile<64, 64>(args, multiprocessors, stream);
  return launch_tile<64, 32>(args, multiprocessors, stream);
}

}  // namespace fdq::cuda
