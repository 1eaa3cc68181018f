// The tiles of fp8_linear_sm90.cu: how they lie in shared memory, in which order they come, and how they get
// there.
#pragma once

#include "cuda/fp8_linear.cuh"
#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/stage_ring.cuh"

namespace fdq::cuda::tiles {

constexpr int kBlockK = 128;  // bytes of a row of the 128-byte swizzle, and k of a scale
constexpr int kConsumers = 2;
constexpr int kWarpgroupTokens = 64;  // rows of a wgmma
// Tiles that run at the same time cover about this many tokens: near to a square, so that L2 serves most.
constexpr int kRasterTokens = 2048;
constexpr int kSharedBytes = 227 * 1024;

enum class Scales { kTiles, kRows };

// A tile of the output: kTokens of x by kRows of W. Warpgroups split the tokens of large tiles, each has
// kWaves times 64 of them, and the rows of small ones.
template <int kTileTokens, int kTileRows, int kOutputBytes>
struct Shape {
  static constexpr int kTokens = kTileTokens;
  static constexpr int kRows = kTileRows;
  static constexpr bool kSplitsTokens = kTokens >= kConsumers * kWarpgroupTokens;
  static constexpr int kWaves = kSplitsTokens ? kTokens / (kConsumers * kWarpgroupTokens) : 1;
  static constexpr int kColumns = kSplitsTokens ? kRows : kRows / kConsumers;  // of a warpgroup
  static constexpr bool kStagesOutput = kSplitsTokens;
  // Which operand the blocks of a cluster have in common: the larger one.
  static constexpr bool kSharesX = kTokens > kRows;

  static constexpr int kXBytes = kTokens * kBlockK;
  static constexpr int kWBytes = kRows * kBlockK;
  static constexpr int kScaleBytes = kTokens * static_cast<int>(sizeof(float));
  static constexpr int kBoxColumns = 128 / kOutputBytes;  // of a copy out of shared memory
  static constexpr int kBoxBytes = kWarpgroupTokens * 128;
  static constexpr int kBoxes = kColumns / kBoxColumns;  // of a wave of a warpgroup
  static constexpr int kOutputStage = kStagesOutput ? kConsumers * kWaves * kBoxes * kBoxBytes : 0;
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
  static_assert(kXBytes % 2048 == 0 && kWBytes % 2048 == 0, "half a tile is whole atoms of the swizzle");
};

struct Parameters : Fp8Product {
  int token_tiles, row_tiles;
  int cluster;  // 1 or 2 blocks that share x or W
  bool stores_by_tma;
};

struct Tile {
  int token, row;  // where it begins
};

// The tiles of a block, one after the other. Those of all blocks come in bands of kRasterTokens; blocks of a
// cluster have neighbouring tokens, or rows where they share x.
template <typename S>
class Tiles {
 public:
  __device__ __forceinline__ Tiles(const Parameters& p, int rank)
      : groups_(p.token_tiles / (S::kSharesX ? 1 : p.cluster)),
        row_groups_(p.row_tiles / (S::kSharesX ? p.cluster : 1)),
        cluster_(p.cluster),
        rank_(rank),
        index_(static_cast<int>(blockIdx.x) / p.cluster),
        step_(static_cast<int>(gridDim.x) / p.cluster) {}

  __device__ __forceinline__ bool is_left() const { return index_ < groups_ * row_groups_; }
  __device__ __forceinline__ void advance() { index_ += step_; }
  __device__ __forceinline__ Tile tile() const {
    const int band_height = kRasterTokens / S::kTokens / (S::kSharesX ? 1 : cluster_);
    const int first = index_ / (band_height * row_groups_) * band_height;
    const int height = groups_ - first < band_height ? groups_ - first : band_height;
    const int within = index_ - first * row_groups_;
    const int token = first + within % height, row = within / height;
    return S::kSharesX ? Tile{token * S::kTokens, (row * cluster_ + rank_) * S::kRows}
                       : Tile{(token * cluster_ + rank_) * S::kTokens, row * S::kRows};
  }

 private:
  int groups_, row_groups_, cluster_, rank_, index_, step_;
};

template <typename S>
struct Stages : StageRing<S> {
  __device__ __forceinline__ unsigned char* w() const { return this->base + S::kWAt + this->at * S::kWBytes; }
};

// Copies an operand's part of a stage. The maps have boxes of half of it: blocks that share it copy one half
// each, to both.
template <int kOperandRows>
__device__ __forceinline__ void copy_operand(unsigned char* to, const TensorMap* map, ptx::Barrier* full,
                                             int row, int k, int half_of_both) {
  constexpr int kHalf = kOperandRows / 2;
  if (half_of_both < 0) {
    ptx::tma_load(to, map, full, row, k);
    ptx::tma_load(to + kHalf * kBlockK, map, full, row + kHalf, k);
  } else {
    ptx::tma_load_multicast(to + half_of_both * kHalf * kBlockK, map, full, row + half_of_both * kHalf, k, 3);
  }
}

// By one thread: copies what the consumers multiply, as far ahead as there are stages.
template <typename S, Scales kScales>
__device__ __forceinline__ void produce(Stages<S> stages, const TensorMap* x_map, const TensorMap* w_map,
                                        const Parameters& p, int rank) {
  const int half_of_x = p.cluster > 1 && S::kSharesX ? rank : -1;
  const int half_of_w = p.cluster > 1 && !S::kSharesX ? rank : -1;
  for (Tiles<S> tiles(p, rank); tiles.is_left(); tiles.advance()) {
    const Tile tile = tiles.tile();
    const int64_t scales_left = p.x_scale_stride - tile.token;
    const uint32_t scale_bytes =
        kScales == Scales::kRows || scales_left <= 0
            ? 0u
            : static_cast<uint32_t>(scales_left < S::kTokens ? scales_left : S::kTokens) * sizeof(float);
    for (int block = 0; block < p.k_blocks; ++block, stages.advance()) {
      ptx::barrier_wait(stages.empty(), stages.phase ^ 1);
      ptx::barrier_arrive_expect(stages.full(), S::kXBytes + S::kWBytes + scale_bytes);
      copy_operand<S::kTokens>(stages.x(), x_map, stages.full(), tile.token, block * kBlockK, half_of_x);
      copy_operand<S::kRows>(stages.w(), w_map, stages.full(), tile.row, block * kBlockK, half_of_w);
      if (scale_bytes != 0) {
        ptx::bulk_load(stages.scales(), p.x_scales + block * p.x_scale_stride + tile.token, scale_bytes,
                       stages.full());
      }
    }
  }
}

}  // namespace fdq::cuda::tiles
