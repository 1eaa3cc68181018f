// y = x W^T with int8 or int4 weights for many tokens, for Hopper (sm_90a): persistent blocks that take whole
// tiles of 128 rows by 128 tokens. Two warpgroups expand codes in registers and multiply, one while the other
// expands. Two blocks with neighbouring rows form a cluster and bring half of their tokens each to both.
#include "cuda/weight_only.cuh"
#include "cuda/weight_only_wgmma.cuh"

namespace fdq::cuda {
namespace {

constexpr int kConsumers = 2;
constexpr int kHalfTokens = kWeightOnlyTileTokens / 2;  // of a copy
constexpr int kWarpgroupRows = 64;                      // 128 bytes of outputs of two bytes
constexpr int kBand = 16;  // tiles of rows that run one after the other for the same tokens, for L2
constexpr int kOutputBytes = kWeightOnlyTileTokens * kWarpgroupRows * 2;  // of a warpgroup
constexpr int kReserved = kConsumers * kOutputBytes;

template <WeightFormat kFormat, bool kFloat16, bool kNarrow>
using Shape = WeightOnlyShape<kFormat, kFloat16, kNarrow, kConsumers, kWeightOnlyTileTokens,
                              kFormat == WeightFormat::kInt8 ? 2 : 1, kReserved>;

struct Tiles {
  WeightOnlyProduct product;
  int token_tiles, row_tiles;
  int cluster;         // 1 or 2 blocks that share their tokens
  bool stores_by_tma;  // outputs of two bytes in aligned rows
};

struct Tile {
  int token, row;  // where it begins
};

// Bands of kBand tiles of rows, the rows of a band first; blocks of a cluster have neighbouring rows.
__device__ __forceinline__ Tile locate_tile(int index, const Tiles& p, int rank) {
  const int groups = p.row_tiles / p.cluster;
  const int band_height = kBand / p.cluster;
  const int first = index / (band_height * p.token_tiles) * band_height;
  const int height = groups - first < band_height ? groups - first : band_height;
  const int within = index - first * p.token_tiles;
  return {within / height * kWeightOnlyTileTokens,
          ((first + within % height) * p.cluster + rank) * kWeightOnlyTileRows};
}

// Calls visit(tile) for each tile of this block.
template <typename Visit>
__device__ __forceinline__ void visit_tiles(const Tiles& p, int rank, const Visit& visit) {
  const int count = p.row_tiles / p.cluster * p.token_tiles;
  const int step = static_cast<int>(gridDim.x) / p.cluster;
  for (int i = static_cast<int>(blockIdx.x) / p.cluster; i < count; i += step) visit(locate_tile(i, p, rank));
}

template <typename S>
__device__ __forceinline__ void produce(WeightOnlyStages<S> stages, const WeightOnlyMaps& maps,
                                        const Tiles& p, int rank) {
  constexpr int kHalfBytes = S::kXBoxBytes / 2;
  visit_tiles(p, rank, [&](const Tile& tile) {
    for (int unit = 0; unit < p.product.units; ++unit, stages.advance()) {
      ptx::barrier_wait(stages.empty(), stages.phase ^ 1);
      ptx::barrier_arrive_expect(stages.full(), p.product.unit_bytes);
      copy_weight<S>(stages, maps, p.product, tile.row / kPanelRows, unit, ptx::kEvictNormal);
#pragma unroll
      for (int chunk = 0; chunk < S::kChunks; ++chunk) {
        unsigned char* x = stages.x() + chunk * S::kXBoxBytes;
        const int k = (unit * S::kChunks + chunk) * kChunkK;
        if (p.cluster == 1) {
          ptx::tma_load(x, &maps.x, stages.full(), tile.token, k);
          ptx::tma_load(x + kHalfBytes, &maps.x, stages.full(), tile.token + kHalfTokens, k);
        } else {
          ptx::tma_load_multicast(x + rank * kHalfBytes, &maps.x, stages.full(),
                                  tile.token + rank * kHalfTokens, k, 3);
        }
      }
    }
  });
}

// Through shared memory, as [tokens][64 rows]: TMA takes it from there and clips it.
template <typename S>
__device__ __forceinline__ void store_staged(const float (&sum)[S::kSums], unsigned char* shared,
                                             const TensorMap* y_map, const Tile& tile,
                                             const WeightOnlyProduct& p) {
  const int warpgroup = ptx::warp() / 4;
  const int row = ptx::warp() % 4 * kPanelRows + ptx::lane() / 4;  // of the warpgroup
  const int first_row = tile.row + warpgroup * kWarpgroupRows;
  unsigned char* stage = shared + S::kReservedAt + warpgroup * kOutputBytes;
  const bool is_leader = static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0;
  float bias[2] = {0.0f, 0.0f};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = first_row + row + 8 * half;
    if (p.bias != nullptr && at < p.n) bias[half] = p.bias[at];
  }
  if (is_leader) ptx::tma_store_wait_read<0>();
  ptx::named_barrier_sync(1 + warpgroup, ptx::kWarpgroup);
#pragma unroll
  for (int i = 0; i < S::kSums; i += 4) {
    const int token = i / 4 * 8 + ptx::lane() % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float first = sum[i + 2 * half] + bias[half], second = sum[i + 2 * half + 1] + bias[half];
      const uint32_t pair = p.y_element == ElementType::kFloat16 ? ptx::to_float16_pair(first, second)
                                                                 : ptx::to_bfloat16_pair(first, second);
      const auto offset = static_cast<uint32_t>(token * 128 + (row + 8 * half) * 2);
      *reinterpret_cast<uint16_t*>(stage + ptx::swizzle_128(offset)) = static_cast<uint16_t>(pair);
      *reinterpret_cast<uint16_t*>(stage + ptx::swizzle_128(offset + 128)) =
          static_cast<uint16_t>(pair >> 16);
    }
  }
  ptx::fence_async_shared();
  ptx::named_barrier_sync(1 + warpgroup, ptx::kWarpgroup);
  if (!is_leader || first_row >= p.n) return;
  ptx::tma_store(y_map, stage, tile.token, first_row);
  ptx::tma_store_commit();
}

template <typename S>
__device__ __forceinline__ void consume(WeightOnlyStages<S> stages, const TensorMap* y_map, const Tiles& p,
                                        int rank) {
  visit_tiles(p, rank, [&](const Tile& tile) {
    WeightOnlySums<S> sums;
    sums.start(0, p.product);
    for (int unit = 0; unit < p.product.units; ++unit, stages.advance()) {
      ptx::barrier_wait(stages.full(), stages.phase);
      multiply_unit<S>(sums, stages, p.product, unit + 1 == p.product.units);
      stages.release(p.cluster);
    }
    if (p.stores_by_tma) {
      store_staged<S>(sums.sum, stages.base, y_map, tile, p.product);
    } else {
      store_elements<S>(sums.sum, tile.row, tile.token, p.product);
    }
  });
  if (static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0) ptx::tma_store_wait<0>();
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    weight_only_warpgroup_kernel(const __grid_constant__ WeightOnlyMaps maps,
                                 const __grid_constant__ TensorMap y_map, const Tiles p) {
  WeightOnlyStages<S> stages{{shared_memory()}};
  const int rank = p.cluster == 1 ? 0 : static_cast<int>(ptx::cluster_rank());
  if (threadIdx.x == 0) {
    ptx::tma_prefetch_map(&maps.x);
    ptx::tma_prefetch_map(&maps.codes);
    ptx::tma_prefetch_map(&maps.scales);
    if (p.stores_by_tma) ptx::tma_prefetch_map(&y_map);
    stages.init(S::kConsumerThreads / ptx::kWarp * p.cluster);
  }
  if (p.cluster == 1) {
    ptx::sync_block();
  } else {
    ptx::sync_cluster();
  }
  if (ptx::warp() / 4 == kConsumers) {
    ptx::set_max_registers_down<S::kProducerRegisters>();
    if (ptx::warp() == kConsumers * 4 && ptx::elect()) produce<S>(stages, maps, p, rank);
    ptx::sync_warp();
  } else {
    ptx::set_max_registers_up<S::kConsumerRegisters>();
    consume<S>(stages, &y_map, p, rank);
  }
  // The other block may still arrive at barriers here.
  if (p.cluster != 1) ptx::sync_cluster();
}

template <typename S>
Error launch_shape(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  Tiles p{};
  p.token_tiles = static_cast<int>(ceil_div(args.tokens, kWeightOnlyTileTokens));
  p.row_tiles = static_cast<int>(ceil_div(args.weight.n, kWeightOnlyTileRows));
  p.cluster = p.row_tiles % 2 == 0 && multiprocessors >= 2 ? 2 : 1;
  WeightOnlyMaps maps{};
  if (const Error error = describe_weight_only<S>(args, kHalfTokens, maps, p.product)) return error;
  TensorMap y_map{};
  const uint64_t row_bytes = static_cast<uint64_t>(args.y_stride) * 2;
  p.stores_by_tma = args.y_element != ElementType::kFloat32 && row_bytes % 16 == 0 &&
                    reinterpret_cast<uintptr_t>(args.y) % 16 == 0;
  if (p.stores_by_tma) {
    const MapElement element =
        args.y_element == ElementType::kFloat16 ? MapElement::kFloat16 : MapElement::kBFloat16;
    if (const Error error = make_tensor_map(
            {args.y, element, static_cast<uint64_t>(args.tokens), static_cast<uint64_t>(args.weight.n),
             row_bytes, kWeightOnlyTileTokens, kWarpgroupRows, Swizzle::k128},
            &y_map)) {
      return error;
    }
  }
  const int64_t tiles = static_cast<int64_t>(p.token_tiles) * p.row_tiles;
  const int64_t blocks = multiprocessors / p.cluster * p.cluster;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(tiles < blocks ? tiles : blocks));
  shape.block = dim3(S::kThreads);
  shape.shared_bytes = S::kTotal;
  shape.cluster = static_cast<unsigned>(p.cluster);
  return launch(weight_only_warpgroup_kernel<S>, shape, stream, maps, y_map, p);
}

template <WeightFormat kFormat>
Error launch_format(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  const bool is_narrow = args.weight.group_k == kNarrowGroup;
  if (args.x_element == ElementType::kFloat16) {
    return is_narrow ? launch_shape<Shape<kFormat, true, true>>(args, multiprocessors, stream)
                     : launch_shape<Shape<kFormat, true, false>>(args, multiprocessors, stream);
  }
  return is_narrow ? launch_shape<Shape<kFormat, false, true>>(args, multiprocessors, stream)
                   : launch_shape<Shape<kFormat, false, false>>(args, multiprocessors, stream);
}

}  // namespace

Error weight_only_warpgroup(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  return args.weight.format == WeightFormat::kInt4
             ? launch_format<WeightFormat::kInt4>(args, multiprocessors, stream)
             : launch_format<WeightFormat::kInt8>(args, multiprocessors, stream);
}

}  // namespace fdq::cuda
