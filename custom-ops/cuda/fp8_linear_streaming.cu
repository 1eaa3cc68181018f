// y = x W^T with e4m3 on both sides for few tokens, before Hopper. Bound by the memory that W is read from:
// every byte of W is loaded once, 16 bytes a lane, straight into the A operand of mma.sync; tokens are its
// columns. k within 64 is permuted alike in both operands, so that a lane's 16 bytes are what it multiplies.
//
// Warps of a block split k, blocks split it further where the rows of W are too few to keep the memory busy.
// How depends on W and the device alone and sums are added in one order, so a token's result does not depend
// on the others.
#include "cuda/fp8_linear.cuh"
#include "cuda/fp8_linear_store.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/warp.cuh"
#include "cuda/split_k.cuh"

namespace fdq::cuda {
namespace {

constexpr int kBlockK = 128;
constexpr int kChunk = 64;  // k of one 16-byte load of four lanes
constexpr int kRowWarps = 4;
constexpr int kWarpRows = 16;
constexpr int kRows = kRowWarps * kWarpRows;  // of W, a block
constexpr int kSplitWarps = 2;                // that share the k of a block
constexpr int kThreads = kRowWarps * kSplitWarps * ptx::kWarp;
constexpr int kTileTokens = 8;
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kLeastBlocksOfK = 4;  // that a warp reads

// Not of Fp8Product: in another order ptxas needs a register more than 128 and spills.
struct Parameters {
  const unsigned char* x;
  const float* x_scales;
  const unsigned char* w;
  const float* w_scales;
  const float* bias;
  void* y;
  float* partial;      // [row tiles][splits][tokens][kRows], where splits > 1
  uint32_t* counters;  // [row tiles], 0
  int64_t x_stride, x_scale_stride, w_stride, y_stride;
  int tokens, n, k_blocks;
  int last_row;  // of W with its padding
  int splits, blocks_per_split;
  float static_scale;
  ElementType y_element;
};

// What a lane multiplies in one block of 128 k.
template <int kTiles>
struct Operands {
  ptx::Quad w[2][2];       // [chunk][row g, row g + 8]
  ptx::Quad x[2][kTiles];  // [chunk][tokens 8 tile + g]
};

// `x_rows`, `w_rows`: where the lane's rows begin, its 16 bytes of a chunk included.
template <int kTiles>
struct Source {
  const unsigned char* x_rows[kTiles];
  const unsigned char* w_rows[2];
  int64_t x_left, w_left;  // bytes of k from there
};

template <int kTiles>
__device__ __forceinline__ void load(Operands<kTiles>& to, const Source<kTiles>& from, int block) {
#pragma unroll
  for (int chunk = 0; chunk < 2; ++chunk) {
    const int64_t k = static_cast<int64_t>(block) * kBlockK + chunk * kChunk;
    const ptx::Quad zero{};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      to.w[chunk][half] = k < from.w_left ? ptx::load_quad<ptx::Reuse::kStream>(from.w_rows[half] + k) : zero;
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      to.x[chunk][tile] = k < from.x_left ? ptx::load_quad(from.x_rows[tile] + k) : zero;
    }
  }
}

template <int kTiles>
__device__ __forceinline__ void multiply(float (&part)[kTiles][4], const Operands<kTiles>& operands) {
#pragma unroll
  for (int chunk = 0; chunk < 2; ++chunk) {
    const ptx::Quad& upper = operands.w[chunk][0];
    const ptx::Quad& lower = operands.w[chunk][1];
#if defined(FDQ_CUDA_EMULATE) || __CUDA_ARCH__ >= 890
#pragma unroll
    for (int step = 0; step < 4; step += 2) {
      const uint32_t a[4] = {upper.word[step], lower.word[step], upper.word[step + 1], lower.word[step + 1]};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const ptx::Quad& x = operands.x[chunk][tile];
        const uint32_t b[2] = {x.word[step], x.word[step + 1]};
        ptx::mma_e4m3(part[tile], a, b);
      }
    }
#else
    // Without products of e4m3: as float16, which holds every e4m3 exactly.
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const uint32_t a[4] = {ptx::e4m3_to_float16_pair(upper.word[step] & 0xffffu),
                             ptx::e4m3_to_float16_pair(lower.word[step] & 0xffffu),
                             ptx::e4m3_to_float16_pair(upper.word[step] >> 16),
                             ptx::e4m3_to_float16_pair(lower.word[step] >> 16)};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint32_t word = operands.x[chunk][tile].word[step];
        const uint32_t b[2] = {ptx::e4m3_to_float16_pair(word & 0xffffu),
                               ptx::e4m3_to_float16_pair(word >> 16)};
        ptx::mma_float16(part[tile], a, b);
      }
    }
#endif
  }
}

// Adds the product of one block of k with the scales of its group, if it has some.
template <int kTiles, bool kGroups>
__device__ __forceinline__ void add_block(float (&sum)[kTiles][4], const Operands<kTiles>& operands,
                                          int block, const Parameters& p, int row) {
  float part[kTiles][4] = {};
  multiply<kTiles>(part, operands);
  const float w_scale = kGroups ? p.w_scales[static_cast<int64_t>(row / kTile) * p.k_blocks + block] : 1.0f;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float scale = 1.0f;
      if constexpr (kGroups) {
        const int token = tile * kTileTokens + ptx::lane() % 4 * 2 + i % 2;
        const int last = p.tokens - 1;
        scale = p.x_scales[block * p.x_scale_stride + (token < last ? token : last)] * w_scale;
      }
      sum[tile][i] += part[tile][i] * scale;
    }
  }
}

template <int kTiles, bool kGroups>
__device__ __forceinline__ void accumulate(float (&sum)[kTiles][4], const Parameters& p, int first_row) {
  constexpr int kStages = kTiles == 1 ? 3 : 2;
  const int split_warp = ptx::warp() / kRowWarps;
  const int g = ptx::lane() / 4, t = ptx::lane() % 4;
  const int row = first_row + ptx::warp() % kRowWarps * kWarpRows;
  Source<kTiles> source;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int wanted = row + g + 8 * half;
    source.w_rows[half] =
        p.w + static_cast<int64_t>(wanted < p.last_row ? wanted : p.last_row) * p.w_stride + 16 * t;
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    const int token = tile * kTileTokens + g;
    source.x_rows[tile] =
        p.x + static_cast<int64_t>(token < p.tokens ? token : p.tokens - 1) * p.x_stride + 16 * t;
  }
  source.w_left = p.w_stride - 16 * t;
  source.x_left = p.x_stride - 16 * t;

  const int begin = static_cast<int>(blockIdx.y) * p.blocks_per_split;
  const int end = begin + p.blocks_per_split < p.k_blocks ? begin + p.blocks_per_split : p.k_blocks;
  Operands<kTiles> ring[kStages];
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    const int block = begin + split_warp + stage * kSplitWarps;
    if (block < end) load<kTiles>(ring[stage], source, block);
  }
  for (int first = begin + split_warp; first < end; first += kStages * kSplitWarps) {
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) {
      const int block = first + stage * kSplitWarps;
      const int ahead = block + (kStages - 1) * kSplitWarps;
      if (ahead < end) load<kTiles>(ring[(stage + kStages - 1) % kStages], source, ahead);
      if (block < end) add_block<kTiles, kGroups>(sum, ring[stage], block, p, row);
    }
  }
}

template <int kTiles>
using Sums = SplitSums<kThreads, kSplitWarps, kTiles * kTileTokens, kRows>;

template <int kTiles, bool kGroups>
__global__ void __launch_bounds__(kThreads, kTiles == 4 ? 1 : kBlocksPerMultiprocessor)
    fp8_linear_streaming_kernel(const Parameters p) {
  const int first_row = static_cast<int>(blockIdx.x) * kRows;
  float sum[kTiles][4] = {};
  accumulate<kTiles, kGroups>(sum, p, first_row);
  const Sums<kTiles> sums{reinterpret_cast<float*>(shared_memory()), static_cast<int>(blockIdx.y), p.tokens};
  sums.put(sum, ptx::warp() % kRowWarps, ptx::warp() / kRowWarps);
  sums.finish(p, [&](float value, int token, int tile_row) {
    if (first_row + tile_row < p.n) store_fp8<kGroups>(value, token, first_row + tile_row, p);
  });
}

template <int kTiles, bool kGroups>
Error launch_tiles(const Parameters& p, unsigned row_tiles, void* stream) {
  LaunchShape shape;
  shape.grid = dim3(row_tiles, static_cast<unsigned>(p.splits));
  shape.block = dim3(kThreads);
  shape.shared_bytes = Sums<kTiles>::kSharedBytes;
  return launch(fp8_linear_streaming_kernel<kTiles, kGroups>, shape, stream, p);
}

template <bool kGroups>
Error launch_groups(const Parameters& p, unsigned row_tiles, void* stream) {
  if (p.tokens <= kTileTokens) return launch_tiles<1, kGroups>(p, row_tiles, stream);
  if (p.tokens <= 2 * kTileTokens) return launch_tiles<2, kGroups>(p, row_tiles, stream);
  return launch_tiles<4, kGroups>(p, row_tiles, stream);
}

}  // namespace

SplitK choose_streaming_split(int64_t n, int64_t k, int multiprocessors) {
  return split_k(ceil_div(n, kRows), ceil_div(k, kBlockK), kBlocksPerMultiprocessor * multiprocessors,
                 kSplitWarps * kLeastBlocksOfK);
}

WorkspaceSize fp8_linear_streaming_workspace(const Fp8LinearArgs& args, int multiprocessors) {
  const SplitK split = choose_streaming_split(args.weight.n, args.weight.k, multiprocessors);
  return split_workspace(ceil_div(args.weight.n, kRows), split.splits, args.tokens * kRows);
}

Error fp8_linear_streaming(const Fp8LinearArgs& args, int multiprocessors, void* stream) {
  const Weight& w = args.weight;
  const SplitK split = choose_streaming_split(w.n, w.k, multiprocessors);
  Parameters p{};
  p.x = static_cast<const unsigned char*>(args.x);
  p.x_scales = args.rule == ActivationRule::kE4M3Static ? nullptr : args.x_scales;
  p.w = static_cast<const unsigned char*>(w.codes);
  p.w_scales = w.scales;
  p.bias = args.bias;
  p.y = args.y;
  p.counters = args.workspace.counters;
  p.partial = args.workspace.partials;
  p.x_stride = args.x_stride;
  p.x_scale_stride = args.x_scale_stride;
  p.w_stride = padded_k(w.k);
  p.y_stride = args.y_stride;
  p.tokens = static_cast<int>(args.tokens);
  p.n = static_cast<int>(w.n);
  p.k_blocks = static_cast<int>(ceil_div(w.k, kBlockK));
  p.last_row = static_cast<int>(round_up(w.n, kPanelRows)) - 1;
  p.splits = split.splits;
  p.blocks_per_split = split.blocks_per_split;
  p.static_scale = args.static_scale;
  p.y_element = args.y_element;
  const auto row_tiles = static_cast<unsigned>(ceil_div(w.n, kRows));
  return args.rule == ActivationRule::kE4M3Group128 ? launch_groups<true>(p, row_tiles, stream)
                                                    : launch_groups<false>(p, row_tiles, stream);
}

}  // namespace fdq::cuda
