// y = x W^T with e4m3 on both sides, for Hopper (sm_90a): persistent blocks, one warpgroup that copies by
// TMA, two that multiply by wgmma. Sums of 128 k leave the tensor core's accumulator, which keeps fewer than
// 32 bits for fp8, and are added in float32 with their scales. The structure is that of DeepGEMM (DeepSeek,
// 2025) and of CUTLASS' warp-specialized persistent kernels.
#include "cuda/fp8_linear.cuh"
#include "cuda/output.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/stage_ring.cuh"

namespace fdq::cuda {
namespace {

constexpr int kBlockK = 128;  // bytes of a row of the 128-byte swizzle, and k of a scale
constexpr int kConsumers = 2;
constexpr int kThreads = (kConsumers + 1) * ptx::kWarpgroup;
constexpr int kConsumerWarps = kConsumers * ptx::kWarpgroup / ptx::kWarp;
constexpr int kWarpgroupTokens = 64;  // rows of a wgmma
// Tiles that run at the same time cover about this many rows of tiles: near to a square, so that L2 serves
// most.
constexpr int kRasterTiles = 16;
constexpr int kSharedBytes = 227 * 1024;
constexpr int kProducerRegisters = 40;
constexpr int kConsumerRegisters = 232;
// Named barriers, one for each warpgroup that multiplies.
constexpr int kStoreBarrier = 1;
constexpr int kTurnBarrier = kStoreBarrier + kConsumers;

enum class Scales { kTiles, kRows };

// A tile of the output: kTokens of x by kRows of W. Warpgroups split the tokens of large tiles and the rows
// of small ones.
template <int kTileTokens, int kTileRows, int kOutputBytes>
struct Shape {
  static constexpr int kTokens = kTileTokens;
  static constexpr int kRows = kTileRows;
  static constexpr bool kSplitsTokens = kTokens == kConsumers * kWarpgroupTokens;
  static constexpr int kColumns = kSplitsTokens ? kRows : kRows / kConsumers;  // of a warpgroup
  static constexpr bool kStagesOutput = kSplitsTokens;

  static constexpr int kXBytes = kTokens * kBlockK;
  static constexpr int kWBytes = kRows * kBlockK;
  static constexpr int kScaleBytes = kTokens * static_cast<int>(sizeof(float));
  static constexpr int kBoxColumns = 128 / kOutputBytes;  // of a copy out of shared memory
  static constexpr int kBoxBytes = kWarpgroupTokens * 128;
  static constexpr int kBoxes = kColumns / kBoxColumns;  // of a warpgroup
  static constexpr int kOutputStage = kStagesOutput ? kConsumers * kBoxes * kBoxBytes : 0;
  static constexpr int kStageBytes =
      kXBytes + kWBytes + kScaleBytes + 2 * static_cast<int>(sizeof(ptx::Barrier));
  static constexpr int kFitting = (kSharedBytes - kOutputStage) / kStageBytes;
  static constexpr int kStages = kFitting < 12 ? kFitting : 12;

  // Offsets in shared memory; the first three are multiples of 1024, as the swizzle asks.
  static constexpr int kXAt = 0;
  static constexpr int kWAt = kStages * kXBytes;
  static constexpr int kOutputAt = kWAt + kStages * kWBytes;
  static constexpr int kScaleAt = kOutputAt + kOutputStage;
  static constexpr int kBarrierAt = kScaleAt + kStages * kScaleBytes;
  static constexpr int kTotal = kBarrierAt + 2 * kStages * static_cast<int>(sizeof(ptx::Barrier));
  static_assert(kTotal <= kSharedBytes && kStages >= 3);
  static_assert(kXBytes % 1024 == 0 && kWBytes % 2048 == 0, "half a tile of W is whole atoms of the swizzle");
};

struct Parameters {
  const float* x_scales;
  const float* w_scales;
  const float* bias;
  void* y;
  int64_t x_scale_stride, y_stride;
  int tokens, n, k_blocks;
  int token_tiles, row_tiles;
  int cluster;         // 1 or 2 blocks that share their tile of W
  float static_scale;  // of x where x_scales is null
  ElementType y_element;
  bool stores_by_tma;
};

struct Tile {
  int token, row;  // where it begins
};

// Tiles in bands of kRasterTiles rows; blocks of a cluster have neighbouring tokens.
template <typename S>
__device__ __forceinline__ Tile locate_tile(int index, const Parameters& p, int rank) {
  const int groups = p.token_tiles / p.cluster;
  const int band_height = kRasterTiles / p.cluster;
  const int band = index / (band_height * p.row_tiles);
  const int first = band * band_height;
  const int height = groups - first < band_height ? groups - first : band_height;
  const int within = index - first * p.row_tiles;
  return {((first + within % height) * p.cluster + rank) * S::kTokens, within / height * S::kRows};
}

template <typename S>
struct Stages : StageRing<S> {
  __device__ __forceinline__ unsigned char* w() const { return this->base + S::kWAt + this->at * S::kWBytes; }
};

// By one thread: copies what the consumers multiply, as far ahead as there are stages.
template <typename S, Scales kScales>
__device__ __forceinline__ void produce(Stages<S> stages, const TensorMap* x_map, const TensorMap* w_map,
                                        const Parameters& p, int rank) {
  constexpr int kHalf = S::kRows / 2;
  for (int index = static_cast<int>(blockIdx.x) / p.cluster; index < p.token_tiles / p.cluster * p.row_tiles;
       index += static_cast<int>(gridDim.x) / p.cluster) {
    const Tile tile = locate_tile<S>(index, p, rank);
    const int64_t scales_left = p.x_scale_stride - tile.token;
    const uint32_t scale_bytes =
        kScales == Scales::kRows || scales_left <= 0
            ? 0u
            : static_cast<uint32_t>(scales_left < S::kTokens ? scales_left : S::kTokens) * sizeof(float);
    for (int block = 0; block < p.k_blocks; ++block, stages.advance()) {
      ptx::barrier_wait(stages.empty(), stages.phase ^ 1);
      ptx::barrier_arrive_expect(stages.full(), S::kXBytes + S::kWBytes + scale_bytes);
      ptx::tma_load(stages.x(), x_map, stages.full(), tile.token, block * kBlockK);
      if (p.cluster == 1) {
        ptx::tma_load(stages.w(), w_map, stages.full(), tile.row, block * kBlockK);
        ptx::tma_load(stages.w() + S::kWBytes / 2, w_map, stages.full(), tile.row + kHalf, block * kBlockK);
      } else {
        ptx::tma_load_multicast(stages.w() + rank * (S::kWBytes / 2), w_map, stages.full(),
                                tile.row + rank * kHalf, block * kBlockK, 3);
      }
      if (scale_bytes != 0) {
        ptx::bulk_load(stages.scales(), p.x_scales + block * p.x_scale_stride + tile.token, scale_bytes,
                       stages.full());
      }
    }
  }
}

// Where a thread's accumulators lie: rows `token` and token + 8 of the tile, columns `row` + 8 j and the
// next.
struct Place {
  int warpgroup, token, row;
};
template <typename S>
__device__ __forceinline__ Place locate_thread() {
  const int warpgroup = ptx::warp() / 4;
  const int token = ptx::warp() % 4 * 16 + ptx::lane() / 4;
  const int column = ptx::lane() % 4 * 2;
  return S::kSplitsTokens ? Place{warpgroup, warpgroup * kWarpgroupTokens + token, column}
                          : Place{warpgroup, token, warpgroup * S::kColumns + column};
}

template <typename S>
using Sums = float[S::kColumns / 2];

// Starts the product of the 128 k in `stages`, which have arrived.
template <typename S>
__device__ __forceinline__ void multiply(Sums<S>& part, const Stages<S>& stages, int warpgroup) {
  const int x_offset = S::kSplitsTokens ? warpgroup * kWarpgroupTokens * kBlockK : 0;
  const int w_offset = S::kSplitsTokens ? 0 : warpgroup * S::kColumns * kBlockK;
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

// Waits until at most kPending products are under way, gives the stage of the one that ended back and adds it,
// scaled but for scales of rows.
template <typename S, Scales kScales, int kPending>
__device__ __forceinline__ void promote(Sums<S>& sum, Sums<S>& part, const Stages<S>& stages, float w_scale,
                                        const Place& place, const Parameters& p) {
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
  // Last, though the stage is free already: over this branch no compiler moves the sums behind the next wait.
  ptx::wgmma_pin(sum);
  ptx::sync_warp();
  if (ptx::lane() < p.cluster) {
    if (p.cluster == 1) {
      ptx::barrier_arrive(stages.empty());
    } else {
      ptx::barrier_arrive_cluster(stages.empty(), static_cast<uint32_t>(ptx::lane()));
    }
  }
}

// The warpgroups take turns to start products, so that one adds and stores while those of the other run. Left
// alone both would start, and end, together (as FlashAttention-3, Shah et al. 2024, does for its softmax).
__device__ __forceinline__ void take_turn(int warpgroup) {
  ptx::named_barrier_sync(kTurnBarrier + warpgroup, kConsumers * ptx::kWarpgroup);
}
__device__ __forceinline__ void pass_turn(int warpgroup) {
  ptx::named_barrier_arrive(kTurnBarrier + 1 - warpgroup, kConsumers * ptx::kWarpgroup);
}

// Adds 128 k or, with kPair, twice as many.
template <typename S, Scales kScales, bool kPair>
__device__ __forceinline__ void add_blocks(Sums<S>& sum, Stages<S>& stages, const float* w_scales,
                                           const Place& place, const Parameters& p) {
  const Stages<S> first = stages;
  stages.advance();
  const Stages<S> second = stages;
  float w_scale[2] = {1.0f, 1.0f};
  if constexpr (kScales == Scales::kTiles) {
    w_scale[0] = w_scales[0];
    if constexpr (kPair) w_scale[1] = w_scales[1];
  }
  float part[2][S::kColumns / 2];
  ptx::barrier_wait(first.full(), first.phase);
  if constexpr (kPair) {
    ptx::barrier_wait(second.full(), second.phase);
    stages.advance();
  }
  take_turn(place.warpgroup);
  multiply<S>(part[0], first, place.warpgroup);
  if constexpr (kPair) multiply<S>(part[1], second, place.warpgroup);
  pass_turn(place.warpgroup);
  promote<S, kScales, kPair ? 1 : 0>(sum, part[0], first, w_scale[0], place, p);
  if constexpr (kPair) promote<S, kScales, 0>(sum, part[1], second, w_scale[1], place, p);
}

// The sums of a tile, in float32, scaled but for scales of rows.
template <typename S, Scales kScales>
__device__ __forceinline__ void accumulate(Sums<S>& sum, Stages<S>& stages, const Place& place,
                                           const Tile& tile, const Parameters& p) {
  const float* w_scales = p.w_scales + static_cast<int64_t>(tile.row / kTile) * p.k_blocks;
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; ++i) sum[i] = 0.0f;
  int block = 0;
  for (; block + 1 < p.k_blocks; block += 2) {
    add_blocks<S, kScales, true>(sum, stages, w_scales + block, place, p);
  }
  if (block < p.k_blocks) add_blocks<S, kScales, false>(sum, stages, w_scales + block, place, p);
}

// Calls change(sum, column of the tile) for every sum, a few columns at a time: otherwise all that it loads is
// loaded first, for which there are no registers.
template <typename S, typename Change>
__device__ __forceinline__ void change_sums(Sums<S>& sum, const Place& place, const Change& change) {
  constexpr int kAtOnce = 16;
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; ++i) {
    if (i % kAtOnce == 0) ptx::wgmma_pin(sum);
    change(sum[i], i / 2 % 2, place.row + i / 4 * 8 + i % 2);
  }
}

// Scales of tokens and rows, and the bias. What lies outside the matrix gets a scale of 0.
template <typename S, Scales kScales>
__device__ __forceinline__ void finish(Sums<S>& sum, const Place& place, const Tile& tile,
                                       const Parameters& p) {
  const auto load = [&](const float* of_rows, int column) {
    const int row = tile.row + column;
    return row < p.n ? of_rows[row] : 0.0f;
  };
  if constexpr (kScales == Scales::kRows) {
    float x_scale[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = tile.token + place.token + 8 * half;
      x_scale[half] = p.x_scales == nullptr ? p.static_scale : token < p.tokens ? p.x_scales[token] : 0.0f;
    }
    change_sums<S>(sum, place, [&](float& value, int half, int column) {
      value *= x_scale[half] * load(p.w_scales, column);
    });
  }
  if (p.bias == nullptr) return;
  change_sums<S>(sum, place, [&](float& value, int, int column) { value += load(p.bias, column); });
}

template <int kOutputBytes>
__device__ __forceinline__ void store_pair(void* target, float first, float second, bool is_float16) {
  if constexpr (kOutputBytes == 4) {
    static_cast<float*>(target)[0] = first;
    static_cast<float*>(target)[1] = second;
  } else {
    *static_cast<uint32_t*>(target) =
        is_float16 ? ptx::to_float16_pair(first, second) : ptx::to_bfloat16_pair(first, second);
  }
}

// Through shared memory, in boxes of 64 tokens by 128 bytes that TMA takes from there and clips.
template <typename S, int kOutputBytes>
__device__ __forceinline__ void store_staged(const Sums<S>& sum, unsigned char* shared, const TensorMap* y_map,
                                             const Place& place, const Tile& tile, const Parameters& p) {
  unsigned char* stage = shared + S::kOutputAt + place.warpgroup * S::kBoxes * S::kBoxBytes;
  const int first_token = place.warpgroup * kWarpgroupTokens;
  const bool is_leader = static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0;
  if (is_leader) ptx::tma_store_wait_read<0>();
  ptx::named_barrier_sync(kStoreBarrier + place.warpgroup, ptx::kWarpgroup);
  // The swizzle only changes bits of a column within its box; eight columns are a multiple of 16 bytes.
  const auto lane_at = ptx::swizzle_128(
      static_cast<uint32_t>((place.token - first_token) * 128 + place.row * kOutputBytes));
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; i += 2) {
    const int column = i / 4 * 8;
    const auto within_box = static_cast<uint32_t>(column % S::kBoxColumns * kOutputBytes);
    store_pair<kOutputBytes>(
        stage + (lane_at ^ within_box) + column / S::kBoxColumns * S::kBoxBytes + i / 2 % 2 * 8 * 128, sum[i],
        sum[i + 1], p.y_element == ElementType::kFloat16);
  }
  ptx::fence_async_shared();
  ptx::named_barrier_sync(kStoreBarrier + place.warpgroup, ptx::kWarpgroup);
  if (!is_leader || tile.token + first_token >= p.tokens) return;
#pragma unroll
  for (int box = 0; box < S::kBoxes; ++box) {
    const int column = tile.row + box * S::kBoxColumns;
    if (column < p.n) ptx::tma_store(y_map, stage + box * S::kBoxBytes, tile.token + first_token, column);
  }
  ptx::tma_store_commit();
}

// Element by element where y's rows are not aligned.
template <typename S, int kOutputBytes>
__device__ __forceinline__ void store_direct(const Sums<S>& sum, const Place& place,
                                             const Tile& tile, const Parameters& p) {
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; ++i) {
    const int token = tile.token + place.token + i / 2 % 2 * 8;
    const int row = tile.row + place.row + i / 4 * 8 + i % 2;
    if (token < p.tokens && row < p.n)
      store_output(sum[i], token, row, nullptr, p.y, p.y_stride, p.y_element);
  }
}

template <typename S, Scales kScales, int kOutputBytes>
__device__ __forceinline__ void store(const Sums<S>& sum, unsigned char* shared, const TensorMap* y_map,
                                      const Place& place, const Tile& tile, const Parameters& p) {
  if constexpr (S::kStagesOutput) {
    if (p.stores_by_tma) return store_staged<S, kOutputBytes>(sum, shared, y_map, place, tile, p);
  }
  store_direct<S, kOutputBytes>(sum, place, tile, p);
}

template <typename S, Scales kScales, int kOutputBytes>
__device__ __forceinline__ void consume(Stages<S> stages, const TensorMap* y_map, const Parameters& p,
                                        int rank) {
  const Place place = locate_thread<S>();
  if (place.warpgroup == 1) pass_turn(1);
  for (int index = static_cast<int>(blockIdx.x) / p.cluster; index < p.token_tiles / p.cluster * p.row_tiles;
       index += static_cast<int>(gridDim.x) / p.cluster) {
    const Tile tile = locate_tile<S>(index, p, rank);
    float sum[S::kColumns / 2];
    accumulate<S, kScales>(sum, stages, place, tile, p);
    finish<S, kScales>(sum, place, tile, p);
    store<S, kScales, kOutputBytes>(sum, stages.base, y_map, place, tile, p);
  }
  if (place.warpgroup == 0) take_turn(0);  // the last one, that no one needs
  if (S::kStagesOutput && static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0) ptx::tma_store_wait<0>();
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
                        S::kTokens,
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
  p.x_scales = args.rule == ActivationRule::kE4M3Static ? nullptr : args.x_scales;
  p.w_scales = args.weight.scales;
  p.bias = args.bias;
  p.y = args.y;
  p.x_scale_stride = args.x_scale_stride;
  p.y_stride = args.y_stride;
  p.tokens = static_cast<int>(args.tokens);
  p.n = static_cast<int>(args.weight.n);
  p.k_blocks = static_cast<int>(ceil_div(args.weight.k, kBlockK));
  p.token_tiles = static_cast<int>(ceil_div(args.tokens, S::kTokens));
  p.row_tiles = static_cast<int>(ceil_div(args.weight.n, S::kRows));
  p.cluster = S::kSplitsTokens && p.token_tiles % 2 == 0 && multiprocessors >= 2 ? 2 : 1;
  p.static_scale = args.static_scale;
  p.y_element = args.y_element;
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

template <int kTokens, int kRows>
Error launch_tile(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  const bool is_wide = args.y_element == ElementType::kFloat32;
  if (args.rule == ActivationRule::kE4M3Group128) {
    return is_wide ? launch_shape<Shape<kTokens, kRows, 4>, Scales::kTiles, 4>(args, multiprocessors, stream)
                   : launch_shape<Shape<kTokens, kRows, 2>, Scales::kTiles, 2>(args, multiprocessors, stream);
  }
  return is_wide ? launch_shape<Shape<kTokens, kRows, 4>, Scales::kRows, 4>(args, multiprocessors, stream)
                 : launch_shape<Shape<kTokens, kRows, 2>, Scales::kRows, 2>(args, multiprocessors, stream);
}

}  // namespace

Error fp8_linear_warpgroup(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  const WarpgroupTile tile = choose_warpgroup_tile(args.tokens, args.weight.n, multiprocessors);
  if (tile.tokens == 128) return launch_tile<128, 128>(args, multiprocessors, stream);
  if (tile.rows == 64) return launch_tile<64, 64>(args, multiprocessors, stream);
  return launch_tile<64, 32>(args, multiprocessors, stream);
}

}  // namespace fdq::cuda
