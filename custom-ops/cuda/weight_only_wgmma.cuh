// What the two wgmma kernels of weight_only share: the stages in shared memory, their copies, and the
// products. W's rows are the 64 rows of wgmma, its codes are expanded in registers (A); tokens are the
// columns (B), in shared memory. One warpgroup copies, with one thread; the warps of the others multiply,
// each a panel of 16 rows.
//
// A unit is what a stage holds: kUnitK of k of a tile's rows and tokens. TMA reads codes as a matrix of words
// [panels][words of a panel] in boxes of 1 KB a panel, so that two copies bring a tile.
#pragma once

#include "cuda/ptx/tma.cuh"
#include "cuda/ptx/wgmma.cuh"
#include "cuda/stage_ring.cuh"
#include "cuda/weight_only_fragments.cuh"

namespace fdq::cuda {

constexpr int kBoxWords = 256;  // of a panel
constexpr int kBoxBytes = kBoxWords * 4;

// kNarrow: groups of 32. kReserved: bytes of shared memory that the kernel uses for itself.
template <WeightFormat kWeightFormat, bool kIsFloat16, bool kIsNarrow, int kWarpgroups, int kWidth,
          int kBoxesOfUnit, int kReserved>
struct WeightOnlyShape {
  static constexpr WeightFormat kFormat = kWeightFormat;
  static constexpr bool kFloat16 = kIsFloat16, kNarrow = kIsNarrow;
  static constexpr int kConsumers = kWarpgroups, kTokens = kWidth, kBoxes = kBoxesOfUnit;
  static constexpr int kRows = 64 * kConsumers, kPanels = kRows / kPanelRows;
  static constexpr int kConsumerThreads = kConsumers * ptx::kWarpgroup;
  static constexpr int kThreads = kConsumerThreads + ptx::kWarpgroup;
  // Warpgroups exchange registers out of what the block is launched with: more than that is waited for
  // forever.
  static constexpr int kConsumerRegisters = kConsumers == 4 ? 112 : 232;
  static constexpr int kProducerRegisters = kConsumers == 4 ? 32 : 40;
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
  static_assert(kConsumerRegisters * kConsumers + kProducerRegisters <= kLaunchRegisters * (kConsumers + 1));
  static constexpr int kSums = kTokens / 2;  // of a thread

  static constexpr int kChunksOfBox = kBoxBytes / kChunkBytes<kFormat>;
  static constexpr int kChunks = kBoxes * kChunksOfBox;
  static constexpr int kUnitK = kChunks * kChunkK;
  static constexpr int kSteps = kNarrow ? 2 : 4;  // of 16 k, between two scales at least
  static constexpr int kRounds = kUnitK / 16 / kSteps;
  static constexpr int kMostGroups = kNarrow ? 2 * kChunks : kChunks;

  static constexpr int kXBoxBytes = kTokens * 128;  // 64 k
  static constexpr int kCodeBytes = kBoxes * kPanels * kBoxBytes;
  static constexpr int kXBytes = kChunks * kXBoxBytes;
  static constexpr int kScaleBytes = kPanels * kMostGroups * kPanelRows * static_cast<int>(sizeof(float));
  static constexpr int kZeroBytes = kFormat == WeightFormat::kInt4 ? kPanels * kMostGroups * kPanelRows : 0;
  static constexpr int kStageBytes = kCodeBytes + kXBytes + kScaleBytes + kZeroBytes;
  static constexpr int kBarrierBytes = 2 * static_cast<int>(sizeof(ptx::Barrier));
  static constexpr int kSharedBytes = 227 * 1024;
  static constexpr int kMostStages = 8;
  static constexpr int kFitting = (kSharedBytes - kReserved) / (kStageBytes + kBarrierBytes);
  static constexpr int kStages = kFitting < kMostStages ? kFitting : kMostStages;

  static constexpr int kXAt = kStages * kCodeBytes;
  static constexpr int kReservedAt = kXAt + kStages * kXBytes;
  static constexpr int kScaleAt = kReservedAt + kReserved;
  static constexpr int kZeroAt = kScaleAt + kStages * kScaleBytes;
  static constexpr int kBarrierAt = kZeroAt + kStages * kZeroBytes;
  static constexpr int kTotal = kBarrierAt + kStages * kBarrierBytes;
  static_assert(kStages >= 3 && kTotal <= kSharedBytes);
  static_assert(kXBoxBytes % 1024 == 0 && kReserved % 128 == 0 && kZeroBytes % 128 == 0);
};

struct WeightOnlyMaps {
  TensorMap x, codes, scales, zero_points;
};

// What both kernels need to know of the product.
struct WeightOnlyProduct {
  const float* bias;
  void* y;
  int64_t y_stride;
  int tokens, n;
  int units;             // of a tile: ceil(k / kUnitK)
  int chunks_per_group;  // INT32_MAX: a scale a row
  int groups_per_box;    // of the copies of scales
  uint32_t unit_bytes;   // that the copies of a unit bring
  bool has_zero_points;
  ElementType y_element;
};

template <typename S>
struct WeightOnlyStages : StageRing<S> {
  __device__ __forceinline__ unsigned char* codes() const { return this->base + this->at * S::kCodeBytes; }
  __device__ __forceinline__ int8_t* zero_points() const {
    return reinterpret_cast<int8_t*>(this->base + S::kZeroAt + this->at * S::kZeroBytes);
  }
};

// Copies codes, scales and zero points of a unit; the caller has announced them and copies x.
template <typename S>
__device__ __forceinline__ void copy_weight(const WeightOnlyStages<S>& stages, const WeightOnlyMaps& maps,
                                            const WeightOnlyProduct& p, int panel, int unit,
                                            uint64_t policy) {
#pragma unroll
  for (int box = 0; box < S::kBoxes; ++box) {
    ptx::tma_load(stages.codes() + box * S::kPanels * kBoxBytes, &maps.codes, stages.full(), panel,
                  (unit * S::kBoxes + box) * kBoxWords, policy);
  }
  const int chunk = unit * S::kChunks;
  const int column = (S::kNarrow ? 2 * chunk : chunk / p.chunks_per_group) * kPanelRows;
  ptx::tma_load(stages.scales(), &maps.scales, stages.full(), panel, column);
  if (p.has_zero_points) {
    ptx::tma_load(stages.zero_points(), &maps.zero_points, stages.full(), panel, column);
  }
}

// The sums of a warp's panel. `part` has those of the current group, not yet scaled.
template <typename S>
struct WeightOnlySums {
  float sum[S::kSums];
  float part[S::kSums];
  bool is_fresh;  // part is to be overwritten
  int left;       // chunks of the current group, this one included
  int panel;      // of the tile

  __device__ __forceinline__ void start(int unit, const WeightOnlyProduct& p) {
#pragma unroll
    for (int i = 0; i < S::kSums; ++i) sum[i] = part[i] = 0.0f;
    is_fresh = true;
    left = S::kNarrow ? 1 : p.chunks_per_group - unit * S::kChunks % p.chunks_per_group;
    panel = ptx::warp();
  }
};

// Where a lane reads what belongs to its panel in a stage.
struct WeightOnlyPanel {
  const unsigned char* codes;
  const float* scales;        // of the current group
  const int8_t* zero_points;  // of the group that is expanded
  uint32_t offsets[2];        // what its codes are raised by
};
template <typename S>
__device__ __forceinline__ WeightOnlyPanel locate_panel(const WeightOnlyStages<S>& stages,
                                                        const WeightOnlyProduct& p, int panel) {
  const int first = panel * p.groups_per_box * kPanelRows;
  WeightOnlyPanel located{
      stages.codes() + panel * kBoxBytes + ptx::lane() * static_cast<int>(sizeof(ptx::Quad)),
      stages.scales() + first + ptx::lane() / 4,
      stages.zero_points() + first,
      {}};
  clear_offsets<S::kFloat16>(located.offsets);
  return located;
}

template <typename S, bool kZeroPoints>
__device__ __forceinline__ void expand_round(uint32_t (&a)[S::kSteps][4], WeightOnlyPanel& panel, int round) {
  const int chunk = S::kNarrow ? round / 2 : round;
  const unsigned char* codes = panel.codes + chunk / S::kChunksOfBox * S::kPanels * kBoxBytes +
                               chunk % S::kChunksOfBox * kChunkBytes<S::kFormat>;
  if constexpr (kZeroPoints) load_offsets<S::kFloat16>(panel.offsets, panel.zero_points);
  expand_steps<S::kFormat, S::kFloat16, S::kSteps>(a, codes, S::kNarrow ? round % 2 * S::kSteps : 0,
                                                   panel.offsets);
}

template <typename S>
__device__ __forceinline__ void issue_round(WeightOnlySums<S>& sums, const uint32_t (&a)[S::kSteps][4],
                                            const WeightOnlyStages<S>& stages, int round) {
  ptx::wgmma_pin(sums.part);
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < S::kSteps; ++i) {
    const int step = round * S::kSteps + i;  // of 16 k, 32 bytes of a row
    const uint64_t x =
        ptx::wgmma_advance(ptx::wgmma_operand(stages.x() + step / 4 * S::kXBoxBytes), step % 4 * 32);
    const bool accumulate = i != 0 || !sums.is_fresh;
    if constexpr (S::kFloat16) {
      ptx::Wgmma<S::kTokens>::float16(sums.part, a[i], x, accumulate);
    } else {
      ptx::Wgmma<S::kTokens>::bfloat16(sums.part, a[i], x, accumulate);
    }
  }
  ptx::wgmma_commit();
}

// Multiplies the rounds of a unit. While the tensor core works on one the next is expanded, by this warp or,
// where ptxas moves that behind the wait, by those of other warpgroups. kEnds: a group, or the last one, may
// end in this unit.
template <typename S, bool kEnds, bool kZeroPoints>
__device__ __forceinline__ void multiply_rounds(WeightOnlySums<S>& sums, const WeightOnlyStages<S>& stages,
                                                const WeightOnlyProduct& p, bool is_last) {
  WeightOnlyPanel panel = locate_panel<S>(stages, p, sums.panel);
  uint32_t a[2][S::kSteps][4];
  expand_round<S, kZeroPoints>(a[0], panel, 0);
#pragma unroll
  for (int round = 0; round < S::kRounds; ++round) {
    issue_round<S>(sums, a[round % 2], stages, round);
    const float upper = kEnds ? panel.scales[0] : 1.0f, lower = kEnds ? panel.scales[8] : 1.0f;
    const bool ends = kEnds && (S::kNarrow || sums.left == 1);
    if (ends) {
      panel.scales += kPanelRows;
      panel.zero_points += kPanelRows;
    }
    if (round + 1 < S::kRounds) expand_round<S, kZeroPoints>(a[(round + 1) % 2], panel, round + 1);
    ptx::wgmma_wait<0>();
    ptx::wgmma_pin(sums.part);
    sums.is_fresh = ends || (kEnds && is_last && round + 1 == S::kRounds);
    if (sums.is_fresh) {
#pragma unroll
      for (int i = 0; i < S::kSums; ++i) sums.sum[i] += sums.part[i] * (i / 2 % 2 == 0 ? upper : lower);
    }
    if (kEnds && !S::kNarrow) sums.left = ends ? p.chunks_per_group : sums.left - 1;
  }
  if (!kEnds) sums.left -= S::kChunks;
}

// Multiplies a unit that has arrived. `is_last`: no other unit follows for these sums.
template <typename S>
__device__ __forceinline__ void multiply_unit(WeightOnlySums<S>& sums, const WeightOnlyStages<S>& stages,
                                              const WeightOnlyProduct& p, bool is_last) {
  if (S::kFormat == WeightFormat::kInt4 && p.has_zero_points) {
    multiply_rounds<S, true, S::kFormat == WeightFormat::kInt4>(sums, stages, p, is_last);
  } else if (S::kNarrow || is_last || sums.left <= S::kChunks) {
    multiply_rounds<S, true, false>(sums, stages, p, is_last);
  } else {
    multiply_rounds<S, false, false>(sums, stages, p, is_last);
  }
}

template <typename S, ElementType kElement>
__device__ __forceinline__ void store_elements_as(const float (&sum)[S::kSums], int tile_row, int tile_token,
                                                  const WeightOnlyProduct& p) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = tile_row + ptx::warp() * kPanelRows + ptx::lane() / 4 + 8 * half;
    if (row >= p.n) continue;
    const float bias = p.bias == nullptr ? 0.0f : p.bias[row];
#pragma unroll
    for (int i = 0; i < S::kSums / 2; ++i) {
      const int token = tile_token + ptx::lane() % 4 * 2 + i / 2 * 8 + i % 2;
      const float value = sum[i / 2 * 4 + 2 * half + i % 2] + bias;
      if (token < p.tokens) store_output(value, token, row, nullptr, p.y, p.y_stride, kElement);
    }
  }
}
// Stores a tile element by element: neighbouring outputs are no more than 8 rows.
template <typename S>
__device__ __forceinline__ void store_elements(const float (&sum)[S::kSums], int tile_row, int tile_token,
                                               const WeightOnlyProduct& p) {
  if (p.y_element == ElementType::kFloat32) {
    store_elements_as<S, ElementType::kFloat32>(sum, tile_row, tile_token, p);
  } else if (p.y_element == ElementType::kFloat16) {
    store_elements_as<S, ElementType::kFloat16>(sum, tile_row, tile_token, p);
  } else {
    store_elements_as<S, ElementType::kBFloat16>(sum, tile_row, tile_token, p);
  }
}

// Host: the maps of x, with boxes of `x_rows` tokens, and of W; and what of `product` follows from the shape.
template <typename S>
Error describe_weight_only(const WeightOnlyArgs& args, int x_rows, WeightOnlyMaps& maps,
                           WeightOnlyProduct& product) {
  const Weight& w = args.weight;
  const auto panels = static_cast<uint64_t>(num_panels(w.n));
  const auto groups = static_cast<uint64_t>(num_groups(w.k, w.group_k));
  product.bias = args.bias;
  product.y = args.y;
  product.y_stride = args.y_stride;
  product.tokens = static_cast<int>(args.tokens);
  product.n = static_cast<int>(w.n);
  product.units = static_cast<int>(ceil_div(w.k, S::kUnitK));
  product.chunks_per_group = w.group_k == 0 ? INT32_MAX : S::kNarrow ? 1 : w.group_k / kChunkK;
  // As many groups as k's of a unit can lie in.
  const int64_t group = w.group_k == 0 ? INT32_MAX : w.group_k;
  product.groups_per_box = static_cast<int>(S::kUnitK % group == 0 ? S::kUnitK / group
                                            : group % S::kUnitK == 0 || w.group_k == 0
                                                ? 1
                                                : ceil_div(S::kUnitK + group - kChunkK, group));
  product.has_zero_points = w.zero_points != nullptr;
  const int group_columns = product.groups_per_box * kPanelRows;
  product.unit_bytes = static_cast<uint32_t>(S::kCodeBytes + S::kXBytes +
                                             S::kPanels * group_columns * (product.has_zero_points ? 5 : 4));
  product.y_element = args.y_element;

  if (const Error error = make_tensor_map(
          {args.x, S::kFloat16 ? MapElement::kFloat16 : MapElement::kBFloat16,
           static_cast<uint64_t>(args.tokens), static_cast<uint64_t>(w.k),
           static_cast<uint64_t>(args.x_stride) * 2, static_cast<uint32_t>(x_rows), kChunkK, Swizzle::k128},
          &maps.x)) {
    return error;
  }
  const auto bytes = static_cast<uint64_t>(panel_bytes(w.format, w.k));
  if (const Error error = make_tensor_map(
          {w.codes, MapElement::kWord, panels, bytes / 4, bytes, S::kPanels, kBoxWords, Swizzle::kNone},
          &maps.codes)) {
    return error;
  }
  const uint64_t columns = groups * kPanelRows;
  const auto box_columns = static_cast<uint32_t>(group_columns);
  if (const Error error = make_tensor_map({w.scales, MapElement::kFloat32, panels, columns, columns * 4,
                                           S::kPanels, box_columns, Swizzle::kNone},
                                          &maps.scales)) {
    return error;
  }
  if (!product.has_zero_points) return nullptr;
  return make_tensor_map(
      {w.zero_points, MapElement::kByte, panels, columns, columns, S::kPanels, box_columns, Swizzle::kNone},
      &maps.zero_points);
}

}  // namespace fdq::cuda
