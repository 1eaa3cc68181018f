// y = x W^T with e4m3 on both sides, in tiles of 128 tokens by 128 rows, by mma.sync: for the devices without
// wgmma. Ada multiplies e4m3; Ampere, and Hopper in mma.sync, multiply it as float16, which holds every e4m3
// exactly. Tiles come by cp.async, three ahead of the products; sums of 128 k are added in float32 with their
// scales.
#include "cuda/fp8_linear.cuh"
#include "cuda/fp8_linear_store.cuh"
#include "cuda/ptx/convert.cuh"
#include "cuda/ptx/memory.cuh"
#include "cuda/ptx/mma.cuh"
#include "cuda/ptx/warp.cuh"

namespace fdq::cuda {
namespace {

constexpr int kTokens = 128;
constexpr int kRows = 128;  // those of a scale
constexpr int kBlockK = 128;
constexpr int kWarpTokens = 32, kWarpRows = 64;
constexpr int kWarpsOfTokens = kTokens / kWarpTokens, kWarpsOfRows = kRows / kWarpRows;
constexpr int kThreads = kWarpsOfTokens * kWarpsOfRows * ptx::kWarp;
constexpr int kStages = 3;  // 96 KB: what every device since sm_80 has
constexpr int kTileBytes = kTokens * kBlockK;
constexpr int kUnits = kBlockK / 16;  // copies of a row
constexpr int kBand = 16;             // rows of tiles that run one after the other, for L2
static_assert(kTokens == kRows);

struct Parameters : Fp8Product {
  const unsigned char* x;
  const unsigned char* w;
  int64_t x_stride, w_stride;
  int last_row;  // of W with its padding
  int token_tiles, row_tiles;
};

// Copies 128 rows of 128 bytes from `k` on; rows past `last` repeat it, bytes past `stride` are 0.
__device__ __forceinline__ void copy_tile(unsigned char* shared, const unsigned char* matrix, int64_t stride,
                                          int first, int last, int64_t k) {
#pragma unroll
  for (int i = 0; i < kTokens * kUnits / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int row = at / kUnits, unit = at % kUnits;
    const int wanted = first + row;
    const int64_t column = k + unit * 16;
    const bool is_inside = column < stride;
    const unsigned char* from =
        matrix + static_cast<int64_t>(wanted < last ? wanted : last) * stride + (is_inside ? column : 0);
    ptx::cp_async_16(shared + ptx::swizzle_128(static_cast<uint32_t>(row * kBlockK + unit * 16)), from,
                     is_inside ? 16 : 0);
  }
}

struct Tile {
  int token, row;
};
__device__ __forceinline__ Tile locate_tile(const Parameters& p) {
  const int index = static_cast<int>(blockIdx.x);
  const int first = index / (kBand * p.row_tiles) * kBand;
  const int height = p.token_tiles - first < kBand ? p.token_tiles - first : kBand;
  const int within = index - first * p.row_tiles;
  return {(first + within % height) * kTokens, within / height * kRows};
}

// Row `row` of a tile in shared memory, 16 bytes from `k` on.
__device__ __forceinline__ const unsigned char* at(const unsigned char* tile, int row, int k) {
  return tile + ptx::swizzle_128(static_cast<uint32_t>(row * kBlockK + k));
}

// d += a b^T for 32 k of e4m3: a as four matrices of 8 rows x 16 k, b as two.
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(FDQ_CUDA_EMULATE) || (__CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900)
  ptx::mma_e4m3(d, a, b);
#else
  // A word has four consecutive k. Which of them are called the first pair does not matter, if a and b agree.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t upper = a[2 * half], lower = a[2 * half + 1], word = b[half];
    const uint32_t wide[4] = {ptx::e4m3_to_float16_pair(upper & 0xffffu),
                              ptx::e4m3_to_float16_pair(lower & 0xffffu),
                              ptx::e4m3_to_float16_pair(upper >> 16), ptx::e4m3_to_float16_pair(lower >> 16)};
    const uint32_t columns[2] = {ptx::e4m3_to_float16_pair(word & 0xffffu),
                                 ptx::e4m3_to_float16_pair(word >> 16)};
    ptx::mma_float16(d, wide, columns);
  }
#endif
}

constexpr int kTilesOfTokens = kWarpTokens / 16, kTilesOfRows = kWarpRows / 8;
using Sums = float[kTilesOfTokens][kTilesOfRows][4];

__device__ __forceinline__ void multiply_block(Sums& part, const unsigned char* x, const unsigned char* w,
                                               int first_token, int first_row) {
  const int lane = ptx::lane();
  // Not unrolled further: where e4m3 is multiplied as float16 there are no registers for it.
#pragma unroll 1
  for (int k = 0; k < kBlockK; k += 32) {
    uint32_t a[kTilesOfTokens][4];
#pragma unroll
    for (int i = 0; i < kTilesOfTokens; ++i) {
      ptx::load_matrix_x4(a[i], at(x, first_token + i * 16 + lane % 16, k + lane / 16 * 16));
    }
#pragma unroll
    for (int j = 0; j < kTilesOfRows; j += 2) {
      uint32_t b[4];
      ptx::load_matrix_x4(b, at(w, first_row + j * 8 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2 * 16));
      const uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
#pragma unroll
      for (int i = 0; i < kTilesOfTokens; ++i) {
        multiply(part[i][j], a[i], first);
        multiply(part[i][j + 1], a[i], second);
      }
    }
  }
}

// Of the two tokens of a lane in each of its tiles.
using Scales = float[kTilesOfTokens][2];

// Of one block of k. Loaded before its products, which hide the latency.
template <bool kGroups>
__device__ __forceinline__ void load_scales(Scales& scales, int block, int first_token, int tile_row,
                                            const Parameters& p) {
  if (!kGroups) return;
  const float w_scale = p.w_scales[static_cast<int64_t>(tile_row / kTile) * p.k_blocks + block];
#pragma unroll
  for (int i = 0; i < kTilesOfTokens; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = first_token + i * 16 + half * 8 + ptx::lane() / 4;
      scales[i][half] =
          p.x_scales[block * p.x_scale_stride + (token < p.tokens ? token : p.tokens - 1)] * w_scale;
    }
  }
}

// Adds the sums of one block of k, with its scales if it has some.
template <bool kGroups>
__device__ __forceinline__ void promote(Sums& sum, const Sums& part, const Scales& scales) {
#pragma unroll
  for (int i = 0; i < kTilesOfTokens; ++i) {
#pragma unroll
    for (int j = 0; j < kTilesOfRows; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[i][j][e] += part[i][j][e] * (kGroups ? scales[i][e / 2] : 1.0f);
    }
  }
}

template <bool kGroups>
__global__ void __launch_bounds__(kThreads, 1) fp8_linear_mma_kernel(const Parameters p) {
  unsigned char* shared = shared_memory();
  const Tile tile = locate_tile(p);
  const auto copy = [&](int block) {
    if (block < p.k_blocks) {
      unsigned char* stage = shared + block % kStages * 2 * kTileBytes;
      const int64_t k = static_cast<int64_t>(block) * kBlockK;
      copy_tile(stage, p.x, p.x_stride, tile.token, p.tokens - 1, k);
      copy_tile(stage + kTileBytes, p.w, p.w_stride, tile.row, p.last_row, k);
    }
    ptx::cp_async_commit();  // an empty group past the end keeps their number
  };
  for (int block = 0; block < kStages - 1; ++block) copy(block);
  const int first_token = ptx::warp() % kWarpsOfTokens * kWarpTokens;
  const int first_row = ptx::warp() / kWarpsOfTokens * kWarpRows;
  Sums sum = {};
  for (int block = 0; block < p.k_blocks; ++block) {
    ptx::cp_async_wait<kStages - 2>();
    ptx::sync_block();
    copy(block + kStages - 1);
    const unsigned char* stage = shared + block % kStages * 2 * kTileBytes;
    Scales scales;
    load_scales<kGroups>(scales, block, tile.token + first_token, tile.row, p);
    Sums part = {};
    multiply_block(part, stage, stage + kTileBytes, first_token, first_row);
    promote<kGroups>(sum, part, scales);
  }
  ptx::cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < kTilesOfTokens; ++i) {
#pragma unroll
    for (int j = 0; j < kTilesOfRows; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int token = tile.token + first_token + i * 16 + e / 2 * 8 + ptx::lane() / 4;
        const int row = tile.row + first_row + j * 8 + ptx::lane() % 4 * 2 + e % 2;
        if (token < p.tokens && row < p.n) store_fp8<kGroups>(sum[i][j][e], token, row, p);
      }
    }
  }
}

}  // namespace

Error fp8_linear_mma(const Fp8LinearArgs& args, void* stream) {
  Parameters p{};
  static_cast<Fp8Product&>(p) = describe_product(args);
  p.x = static_cast<const unsigned char*>(args.x);
  p.w = static_cast<const unsigned char*>(args.weight.codes);
  p.x_stride = args.x_stride;
  p.w_stride = padded_k(args.weight.k);
  p.last_row = static_cast<int>(round_up(args.weight.n, kPanelRows)) - 1;
  p.token_tiles = static_cast<int>(ceil_div(args.tokens, kTokens));
  p.row_tiles = static_cast<int>(ceil_div(args.weight.n, kRows));
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(p.token_tiles) * static_cast<unsigned>(p.row_tiles));
  shape.block = dim3(kThreads);
  shape.shared_bytes = static_cast<int64_t>(kStages) * 2 * kTileBytes;
  return args.rule == ActivationRule::kE4M3Group128 ? launch(fp8_linear_mma_kernel<true>, shape, stream, p)
                                                    : launch(fp8_linear_mma_kernel<false>, shape, stream, p);
}

}  // namespace fdq::cuda
