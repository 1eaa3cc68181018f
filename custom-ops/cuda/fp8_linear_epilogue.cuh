// The end of a tile of fp8_linear_sm90.cu: scales, bias, and out of the registers.
#pragma once

#include "cuda/fp8_linear_tiles.cuh"
#include "cuda/output.cuh"
#include "cuda/ptx/convert.cuh"

namespace fdq::cuda::tiles {

constexpr int kStoreBarrier = 1;  // and the next, a named barrier for each warpgroup

// Where a thread's sums of a wave lie: tokens `token` and token + 8 of the tile, columns `row` + 8 j and the
// next.
struct Place {
  int warpgroup, wave, token, row;
};
template <typename S>
__device__ __forceinline__ Place locate_thread(int warpgroup, int wave) {
  const int token = static_cast<int>(threadIdx.x) % ptx::kWarpgroup / ptx::kWarp * 16 + ptx::lane() / 4;
  const int column = ptx::lane() % 4 * 2;
  return S::kSplitsTokens
             ? Place{warpgroup, wave, (warpgroup * S::kWaves + wave) * kWarpgroupTokens + token, column}
             : Place{warpgroup, wave, token, warpgroup * S::kColumns + column};
}

template <typename S>
using Sums = float[S::kColumns / 2];

// Calls change(sum, column of the tile) for every sum, a few columns at a time: otherwise all that it loads
// is loaded first, for which there are no registers.
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

// Until the copies of the tile before have read what the warpgroup left in shared memory.
__device__ __forceinline__ void wait_for_store(int warpgroup) {
  if (static_cast<int>(threadIdx.x) % ptx::kWarpgroup == 0) ptx::tma_store_wait_read<0>();
  ptx::named_barrier_sync(kStoreBarrier + warpgroup, ptx::kWarpgroup);
}

// Through shared memory, in boxes of 64 tokens by 128 bytes that TMA takes from there and clips.
template <typename S, int kOutputBytes>
__device__ __forceinline__ void store_staged(const Sums<S>& sum, unsigned char* shared,
                                             const TensorMap* y_map, const Place& place, const Tile& tile,
                                             const Parameters& p) {
  const int wave = place.warpgroup * S::kWaves + place.wave;
  unsigned char* stage = shared + S::kOutputAt + wave * S::kBoxes * S::kBoxBytes;
  // The swizzle only changes bits of a column within its box; eight columns are a multiple of 16 bytes.
  const auto lane_at = ptx::swizzle_128(
      static_cast<uint32_t>(place.token % kWarpgroupTokens * 128 + place.row * kOutputBytes));
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
  const int token = tile.token + wave * kWarpgroupTokens;
  if (static_cast<int>(threadIdx.x) % ptx::kWarpgroup != 0 || token >= p.tokens) return;
#pragma unroll
  for (int box = 0; box < S::kBoxes; ++box) {
    const int column = tile.row + box * S::kBoxColumns;
    if (column < p.n) ptx::tma_store(y_map, stage + box * S::kBoxBytes, token, column);
  }
  ptx::tma_store_commit();
}

// Element by element where y's rows are not aligned.
template <typename S, int kOutputBytes>
__device__ __forceinline__ void store_direct(const Sums<S>& sum, const Place& place, const Tile& tile,
                                             const Parameters& p) {
#pragma unroll
  for (int i = 0; i < S::kColumns / 2; ++i) {
    const int token = tile.token + place.token + i / 2 % 2 * 8;
    const int row = tile.row + place.row + i / 4 * 8 + i % 2;
    if (token < p.tokens && row < p.n)
      store_output(sum[i], token, row, nullptr, p.y, p.y_stride, p.y_element);
  }
}

template <typename S, int kOutputBytes>
__device__ __forceinline__ void store(const Sums<S>& sum, unsigned char* shared, const TensorMap* y_map,
                                      const Place& place, const Tile& tile, const Parameters& p) {
  if constexpr (S::kStagesOutput) {
    if (p.stores_by_tma) return store_staged<S, kOutputBytes>(sum, shared, y_map, place, tile, p);
  }
  store_direct<S, kOutputBytes>(sum, place, tile, p);
}

}  // namespace fdq::cuda::tiles
