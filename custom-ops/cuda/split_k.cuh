// Blocks that share the k of a tile of W's rows, where there are too few tiles to keep the memory busy: the
// products of few tokens by mma.sync. How they do depends on W and the device alone, and sums are added in
// one order, so that a token's result does not depend on the others.
#pragma once

#include "cuda/output.cuh"

namespace fdq::cuda {

struct SplitK {
  int splits, blocks_per_split;  // of 128 k
};

// So many splits of the k of `tiles` tiles that there are about `wanted` blocks, of `least` times 128 k or
// more each.
inline SplitK split_k(int64_t tiles, int64_t k_blocks, int64_t wanted, int64_t least) {
  constexpr int64_t kMostSplits = 16;
  int64_t splits = ceil_div(wanted, tiles);
  if (splits > k_blocks / least) splits = k_blocks / least;
  if (splits > kMostSplits) splits = kMostSplits;
  if (splits < 1) splits = 1;
  const int64_t per_split = ceil_div(k_blocks, splits);
  return {static_cast<int>(ceil_div(k_blocks, per_split)), static_cast<int>(per_split)};
}

// `sums`: of a tile.
inline WorkspaceSize split_workspace(int64_t tiles, int64_t splits, int64_t sums) {
  if (splits == 1) return {0, 0};
  return {counter_bytes(tiles), tiles * splits * sums * static_cast<int64_t>(sizeof(float))};
}

// The end of a block of kThreads that multiplied kTokens tokens with kRows rows of W by m16n8k16 or m16n8k32,
// 16 rows a warp; kWarps warps share the k of a row. `Parameters` has splits, and partial [row tiles][splits]
// [tokens][kRows] and counters [row tiles], where there are several.
template <int kThreads, int kWarps, int kTokens, int kRows>
struct SplitSums {
  static constexpr int kPitch = kRows + 4;  // floats of a token: lanes of a store hit other banks
  static constexpr int64_t kSharedBytes = static_cast<int64_t>(kWarps) * kTokens * kPitch * sizeof(float);

  float* shared;  // [kWarps][kTokens][kPitch]
  int split, tokens;

  // Puts what a warp multiplied to the others': warp `k_warp` of those that share rows 16 row_warp and on.
  __device__ __forceinline__ void put(const float (&sum)[kTokens / 8][4], int row_warp, int k_warp) const {
    float* mine = shared + k_warp * kTokens * kPitch + row_warp * 16;
    const int g = ptx::lane() / 4, t = ptx::lane() % 4;
#pragma unroll
    for (int tile = 0; tile < kTokens / 8; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) mine[(tile * 8 + 2 * t + i % 2) * kPitch + g + i / 2 * 8] = sum[tile][i];
    }
  }

  // Calls store(sum, token, row) for all of a tile, in the last block of the tile that gets here.
  template <typename Parameters, typename Store>
  __device__ __forceinline__ void finish(const Parameters& p, const Store& store) const {
    const int row = static_cast<int>(threadIdx.x) % kRows;
    const int first = static_cast<int>(threadIdx.x) / kRows;
    constexpr int kStep = kThreads / kRows;
    ptx::sync_block();
    if (p.splits == 1) {
      for (int token = first; token < tokens; token += kStep) store(add_warps(token, row), token, row);
      return;
    }
    const int64_t size = static_cast<int64_t>(tokens) * kRows;
    float* partial = p.partial + static_cast<int64_t>(blockIdx.x) * p.splits * size;
    for (int token = first; token < tokens; token += kStep) {
      partial[split * size + token * kRows + row] = add_warps(token, row);
    }
    const auto sync = [] { ptx::sync_block(); };
    auto* flag = reinterpret_cast<uint32_t*>(shared);
    if (!is_last_block(p.counters + blockIdx.x, p.splits, flag, sync)) return;
    for (int token = first; token < tokens; token += kStep) {
      float total = 0.0f;
      for (int each = 0; each < p.splits; ++each) total += partial[each * size + token * kRows + row];
      store(total, token, row);
    }
  }

 private:
  __device__ __forceinline__ float add_warps(int token, int row) const {
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[(warp * kTokens + token) * kPitch + row];
    return sum;
  }
};

}  // namespace fdq::cuda
