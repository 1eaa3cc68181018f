// y = x W^T with int8 or int4 weights by mma.sync: for the devices without wgmma, and for rows of x that TMA
// cannot read. W's rows are the 16 rows of m16n8k16, its codes go from shared memory through registers as
// they lie; tokens are the columns, up to 64 a block, and more are more blocks. Stages come by cp.async.
//
// Two warps share the k of 16 rows; up to 64 tokens blocks split it further where the rows of W are too few
// to keep the memory busy. How depends on W and the device alone and sums are added in one order, so a
// token's result does not depend on the others, for 1 .. 64 tokens and for 65 and more.
#include "cuda/ptx/mma.cuh"
#include "cuda/split_k.cuh"
#include "cuda/weight_only.cuh"
#include "cuda/weight_only_fragments.cuh"

namespace fdq::cuda {
namespace {

constexpr int kRowWarps = 4;
constexpr int kRows = kRowWarps * kPanelRows;
constexpr int kSplitWarps = 2;  // that share the k of a block
constexpr int kThreads = kRowWarps * kSplitWarps * ptx::kWarp;
constexpr int kBlockK = kSplitWarps * kChunkK;
constexpr int kTileTokens = 8;
constexpr int kMostTokens = 64;  // of a block
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kSharedBytes = 100 * 1024, kReservedBytes = 1024;  // of a multiprocessor, and of each block
constexpr int kMostStages = 6;
constexpr int kPairs = kBlockK / kNarrowGroup;  // of steps of 16 k, in the k of a block; each in one group
constexpr int kLeastBlocksOfK = 4;              // of a split

template <WeightFormat kWeightFormat, bool kIsFloat16, int kTilesOfTokens>
struct Shape {
  static constexpr WeightFormat kFormat = kWeightFormat;
  static constexpr bool kFloat16 = kIsFloat16;
  static constexpr int kTiles = kTilesOfTokens;
  static constexpr int kTokens = kTiles * kTileTokens;
  static constexpr int kPanelBytes = kSplitWarps * kChunkBytes<kFormat>;
  static constexpr int kCodeBytes = kRowWarps * kPanelBytes;
  static constexpr int kXChunkBytes = kTokens * kChunkK * 2;  // rows of 128 bytes, swizzled
  static constexpr int kXBytes = kSplitWarps * kXChunkBytes;
  static constexpr int kScaleAt = kCodeBytes + kXBytes;
  static constexpr int kScaleBytes = kRowWarps * kPairs * kPanelRows * static_cast<int>(sizeof(float));
  static constexpr int kZeroAt = kScaleAt + kScaleBytes;
  static constexpr int kZeroBytes = kFormat == WeightFormat::kInt4 ? kRowWarps * kPairs * kPanelRows : 0;
  static constexpr int kStageBytes = kZeroAt + kZeroBytes;
  // What fits the 100 KB of a multiprocessor of sm_86 and sm_89.
  static constexpr int kBlocks = kTokens <= 32 ? kBlocksPerMultiprocessor : 1;
  static constexpr int kFitting = (kSharedBytes / kBlocks - kReservedBytes) / kStageBytes;
  static constexpr int kStages = kFitting < 3 ? 3 : kFitting < kMostStages ? kFitting : kMostStages;
  using Splits = SplitSums<kThreads, kSplitWarps, kTokens, kRows>;
  static constexpr int64_t kTotal =
      kStages * kStageBytes > Splits::kSharedBytes ? kStages * kStageBytes : Splits::kSharedBytes;
  static_assert(kStageBytes % 128 == 0 && kTotal <= kSharedBytes - kReservedBytes);
};

struct Parameters {
  const uint16_t* x;
  const unsigned char* codes;
  const float* scales;
  const int8_t* zero_points;
  const float* bias;
  void* y;
  float* partial;      // [row tiles][splits][tokens][kRows], where splits > 1
  uint32_t* counters;  // [row tiles], 0
  int64_t x_stride, y_stride, panel_bytes;
  int tokens, n, k, last_panel;
  int groups, pairs_per_group;           // INT32_MAX: a scale a row
  int groups_per_block;                  // that the k of a block can lie in
  int blocks, splits, blocks_per_split;  // of 128 k
  bool is_aligned;                       // rows of x are multiples of 16 bytes
  ElementType y_element;
};

template <typename S>
__device__ __forceinline__ void copy_codes(unsigned char* stage, const Parameters& p, int first_panel,
                                           int block) {
  constexpr int kUnits = S::kPanelBytes / 16;
#pragma unroll
  for (int i = 0; i < S::kCodeBytes / 16 / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int wanted = first_panel + at / kUnits;
    const int64_t byte = static_cast<int64_t>(block) * S::kPanelBytes + at % kUnits * 16;
    const bool is_inside = byte < p.panel_bytes;
    ptx::cp_async_16(
        stage + at * 16,
        p.codes + (wanted < p.last_panel ? wanted : p.last_panel) * p.panel_bytes + (is_inside ? byte : 0),
        is_inside ? 16 : 0);
  }
}

template <typename S>
__device__ __forceinline__ void copy_x(unsigned char* stage, const Parameters& p, int first_token,
                                       int block) {
  constexpr int kUnits = kChunkK * 2 / 16;  // of a row of a chunk
#pragma unroll
  for (int i = 0; i < S::kXBytes / 16 / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int chunk = at / (S::kTokens * kUnits), row = at / kUnits % S::kTokens, unit = at % kUnits;
    const int token = first_token + row, k = block * kBlockK + chunk * kChunkK + unit * 8;
    unsigned char* to = stage + S::kCodeBytes + chunk * S::kXChunkBytes +
                        ptx::swizzle_128(static_cast<uint32_t>(row * 128 + unit * 16));
    const int left = token < p.tokens && k < p.k ? (p.k - k < 8 ? p.k - k : 8) : 0;
    const uint16_t* from = p.x + (left > 0 ? token * p.x_stride + k : 0);
    if (p.is_aligned) {
      ptx::cp_async_16(to, from, left * 2);
    } else {
      ptx::Quad quad{};
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        if (e < left) quad.word[e / 2] |= static_cast<uint32_t>(from[e]) << e % 2 * 16;
      }
      *reinterpret_cast<ptx::Quad*>(to) = quad;
    }
  }
}

// The group that a pair lies in, and how many of its pairs come before.
struct Cursor {
  int group, before;
  __device__ __forceinline__ void advance(int pairs, int pairs_per_group) {
    for (before += pairs; before >= pairs_per_group; before -= pairs_per_group) ++group;
  }
};
__device__ __forceinline__ Cursor cursor_at(int block, int pairs_per_group) {
  const int pair = block * kPairs, group = pair / pairs_per_group;
  return {group, pair - group * pairs_per_group};
}

// Scales and zero points of a stage, [panels][kPairs][16]: 16 bytes a thread.
template <typename S>
__device__ __forceinline__ void copy_scales(unsigned char* stage, const Parameters& p, int first_panel,
                                            int first_group) {
  constexpr int kUnits = kPanelRows * static_cast<int>(sizeof(float)) / 16;  // of a panel's scales of a group
  constexpr int kScaleThreads = kRowWarps * kPairs * kUnits;
  constexpr int kZeroThreads = kRowWarps * kPairs;
  static_assert(kScaleThreads + kZeroThreads <= kThreads);
  const int thread = static_cast<int>(threadIdx.x);
  const bool is_scale = thread < kScaleThreads;
  if (!is_scale && (p.zero_points == nullptr || thread >= kScaleThreads + kZeroThreads)) return;
  const int at = is_scale ? thread / kUnits : thread - kScaleThreads;  // a panel and a group
  const int panel = first_panel + at / kPairs, group = at % kPairs;
  if (group >= p.groups_per_block) return;
  const int wanted = first_group + group;
  const int64_t from = ((panel < p.last_panel ? panel : p.last_panel) * static_cast<int64_t>(p.groups) +
                        (wanted < p.groups ? wanted : p.groups - 1)) *
                       kPanelRows;
  if (is_scale) {
    ptx::cp_async_16(stage + S::kScaleAt + thread * 16, p.scales + from + thread % kUnits * 4);
  } else {
    ptx::cp_async_16(stage + S::kZeroAt + at * kPanelRows, p.zero_points + from);
  }
}

template <typename S>
using Sums = float[S::kTiles][4];

template <typename S>
__device__ __forceinline__ void promote(Sums<S>& sum, Sums<S>& part, const float* scales) {
  const float upper = scales[ptx::lane() / 4], lower = scales[ptx::lane() / 4 + 8];
#pragma unroll
  for (int tile = 0; tile < S::kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[tile][i] += part[tile][i] * (i < 2 ? upper : lower);
      part[tile][i] = 0.0f;
    }
  }
}

// Two steps of 16 k, `pair` of the chunk's two.
template <typename S>
__device__ __forceinline__ void multiply_pair(Sums<S>& part, const unsigned char* codes,
                                              const unsigned char* x, int pair,
                                              const uint32_t (&offsets)[2]) {
  const int lane = ptx::lane();
  uint32_t a[2][4];
  expand_steps<S::kFormat, S::kFloat16, 2>(a, codes + lane * 16, 2 * pair, offsets);
#pragma unroll
  for (int tile = 0; tile < S::kTiles; ++tile) {
    uint32_t b[4];
    const int row = tile * kTileTokens + lane % 8;
    ptx::load_matrix_x4(b,
                        x + ptx::swizzle_128(static_cast<uint32_t>(row * 128 + pair * 64 + lane / 8 * 16)));
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      const uint32_t columns[2] = {b[2 * step], b[2 * step + 1]};
      if constexpr (S::kFloat16) {
        ptx::mma_float16(part[tile], a[step], columns);
      } else {
        ptx::mma_bfloat16(part[tile], a[step], columns);
      }
    }
  }
}

// The warp's chunk of a block that has arrived. `first`: of the block's first pair; `is_last`: no other block
// follows.
template <typename S>
__device__ __forceinline__ void multiply_chunk(Sums<S>& sum, Sums<S>& part, const unsigned char* stage,
                                               const Parameters& p, const Cursor& first, bool is_last) {
  const int row_warp = ptx::warp() % kRowWarps, half = ptx::warp() / kRowWarps;
  const int panel = row_warp * kPairs * kPanelRows;
  const float* scales = reinterpret_cast<const float*>(stage + S::kScaleAt) + panel;
  const int8_t* zero_points = reinterpret_cast<const int8_t*>(stage + S::kZeroAt) + panel;
  const unsigned char* codes = stage + row_warp * S::kPanelBytes + half * kChunkBytes<S::kFormat>;
  const unsigned char* x = stage + S::kCodeBytes + half * S::kXChunkBytes;
  uint32_t offsets[2];
  clear_offsets<S::kFloat16>(offsets);
  Cursor at = first;
  at.advance(2 * half, p.pairs_per_group);
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const int group = at.group, place = (group - first.group) * kPanelRows;
    if (S::kFormat == WeightFormat::kInt4 && p.zero_points != nullptr) {
      load_offsets<S::kFloat16>(offsets, zero_points + place);
    }
    multiply_pair<S>(part, codes, x, pair, offsets);
    at.advance(pair == 0 ? 1 : kPairs - 1, p.pairs_per_group);  // to the next pair of this warp
    if (at.group != group || (is_last && pair == 1)) promote<S>(sum, part, scales + place);
  }
}

template <typename S>
__device__ __forceinline__ void accumulate(Sums<S>& sum, const Parameters& p, int first_token) {
  unsigned char* shared = shared_memory();
  const int begin = static_cast<int>(blockIdx.z) * p.blocks_per_split;
  const int end = begin + p.blocks_per_split < p.blocks ? begin + p.blocks_per_split : p.blocks;
  Cursor copied = cursor_at(begin, p.pairs_per_group), multiplied = copied;
  const auto copy = [&](int block) {
    if (block < end) {
      unsigned char* stage = shared + block % S::kStages * S::kStageBytes;
      copy_codes<S>(stage, p, static_cast<int>(blockIdx.x) * kRowWarps, block);
      copy_scales<S>(stage, p, static_cast<int>(blockIdx.x) * kRowWarps, copied.group);
      copied.advance(kPairs, p.pairs_per_group);
      copy_x<S>(stage, p, first_token, block);
    }
    ptx::cp_async_commit();  // an empty group past the end keeps their number
  };
  for (int block = begin; block < begin + S::kStages - 1; ++block) copy(block);
  Sums<S> part = {};
  for (int block = begin; block < end; ++block) {
    ptx::cp_async_wait<S::kStages - 2>();
    ptx::sync_block();
    copy(block + S::kStages - 1);
    multiply_chunk<S>(sum, part, shared + block % S::kStages * S::kStageBytes, p, multiplied,
                      block + 1 == end);
    multiplied.advance(kPairs, p.pairs_per_group);
  }
  ptx::cp_async_wait<0>();
  ptx::sync_block();
}

template <typename S>
__global__ void __launch_bounds__(kThreads, S::kBlocks) weight_only_mma_kernel(const Parameters p) {
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  const int base = static_cast<int>(blockIdx.y) * S::kTokens;
  const int tokens = p.tokens - base < S::kTokens ? p.tokens - base : S::kTokens;
  Sums<S> sum = {};
  accumulate<S>(sum, p, base);
  const typename S::Splits splits{reinterpret_cast<float*>(shared_memory()), static_cast<int>(blockIdx.z),
                                  tokens};
  splits.put(sum, ptx::warp() % kRowWarps, ptx::warp() / kRowWarps);
  const int row = first_row + static_cast<int>(threadIdx.x) % kRows;
  const float bias = p.bias != nullptr && row < p.n ? p.bias[row] : 0.0f;
  splits.finish(p, [&](float value, int token, int) {
    if (row < p.n) store_output(value + bias, base + token, row, nullptr, p.y, p.y_stride, p.y_element);
  });
}

// More tokens than a block takes are work enough for all.
SplitK choose_split(const Weight& w, int64_t tokens, int multiprocessors) {
  const int64_t wanted = tokens > kMostTokens ? 1 : kBlocksPerMultiprocessor * multiprocessors;
  return split_k(ceil_div(w.n, kRows), ceil_div(w.k, kBlockK), wanted, kLeastBlocksOfK);
}

template <typename S>
Error launch_shape(const Parameters& p, void* stream) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(ceil_div(p.n, kRows)),
                    static_cast<unsigned>(ceil_div(p.tokens, S::kTokens)), static_cast<unsigned>(p.splits));
  shape.block = dim3(kThreads);
  shape.shared_bytes = S::kTotal;
  return launch(weight_only_mma_kernel<S>, shape, stream, p);
}

template <WeightFormat kFormat, bool kFloat16>
Error launch_tokens(const Parameters& p, void* stream) {
  if (p.tokens <= 16) return launch_shape<Shape<kFormat, kFloat16, 2>>(p, stream);
  if (p.tokens <= 32) return launch_shape<Shape<kFormat, kFloat16, 4>>(p, stream);
  return launch_shape<Shape<kFormat, kFloat16, kMostTokens / kTileTokens>>(p, stream);
}

}  // namespace

WorkspaceSize weight_only_mma_workspace(const WeightOnlyArgs& args, int multiprocessors) {
  const int64_t tokens = args.tokens < kMostTokens ? args.tokens : kMostTokens;  // more are not split
  const SplitK split = choose_split(args.weight, tokens, multiprocessors);
  return split_workspace(ceil_div(args.weight.n, kRows), split.splits, tokens * kRows);
}

Error weight_only_mma(const WeightOnlyArgs& args, int multiprocessors, void* stream) {
  const Weight& w = args.weight;
  const SplitK split = choose_split(w, args.tokens, multiprocessors);
  Parameters p{};
  p.x = static_cast<const uint16_t*>(args.x);
  p.codes = static_cast<const unsigned char*>(w.codes);
  p.scales = w.scales;
  p.zero_points = w.zero_points;
  p.bias = args.bias;
  p.y = args.y;
  p.counters = args.workspace.counters;
  p.partial = args.workspace.partials;
  p.x_stride = args.x_stride;
  p.y_stride = args.y_stride;
  p.panel_bytes = panel_bytes(w.format, w.k);
  p.tokens = static_cast<int>(args.tokens);
  p.n = static_cast<int>(w.n);
  p.k = static_cast<int>(w.k);
  p.last_panel = static_cast<int>(num_panels(w.n)) - 1;
  p.groups = static_cast<int>(num_groups(w.k, w.group_k));
  p.pairs_per_group = w.group_k == 0 ? INT32_MAX : w.group_k / kNarrowGroup;
  p.groups_per_block = p.pairs_per_group == 1                              ? kPairs
                       : w.group_k == 0 || p.pairs_per_group % kPairs == 0 ? 1
                                                                           : 2;
  p.blocks = static_cast<int>(ceil_div(w.k, kBlockK));
  p.splits = split.splits;
  p.blocks_per_split = split.blocks_per_split;
  p.is_aligned = reinterpret_cast<uintptr_t>(args.x) % 16 == 0 && args.x_stride % 8 == 0;
  p.y_element = args.y_element;
  const bool is_float16 = args.x_element == ElementType::kFloat16;
  if (w.format == WeightFormat::kInt4) {
    return is_float16 ? launch_tokens<WeightFormat::kInt4, true>(p, stream)
                      : launch_tokens<WeightFormat::kInt4, false>(p, stream);
  }
  return is_float16 ? launch_tokens<WeightFormat::kInt8, true>(p, stream)
                    : launch_tokens<WeightFormat::kInt8, false>(p, stream);
}

}  // namespace fdq::cuda
