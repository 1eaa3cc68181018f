// The kernels that fp8_linear.cu chooses from. All take arguments that it has checked.
#pragma once

#include "cuda/device.cuh"
#include "cuda/split_k.cuh"

namespace fdq::cuda {

// What the parameters of most of them begin with.
struct Fp8Product {
  const float* x_scales;  // null: static_scale
  const float* w_scales;
  const float* bias;
  void* y;
  int64_t x_scale_stride, y_stride;
  int tokens, n, k_blocks;  // of 128 k
  float static_scale;
  ElementType y_element;
};
Fp8Product describe_product(const Fp8LinearArgs& args);

// sm_90a. x, its scales and W's codes are 16-byte aligned.
Error fp8_linear_warpgroup(const Fp8LinearArgs& args, int multiprocessors, void* stream);

struct WarpgroupTile {
  int tokens, rows;
};
// The tile whose waves over all multiprocessors take least time; is_wide: outputs are float32.
WarpgroupTile choose_warpgroup_tile(int64_t tokens, int64_t n, bool is_wide, int multiprocessors);

// sm_90a, at most kSkinnyTokens tokens. x, its scales and W's codes are 16-byte aligned.
constexpr int64_t kSkinnyTokens = 64;
Error fp8_linear_skinny(const Fp8LinearArgs& args, int multiprocessors, void* stream);
WorkspaceSize fp8_linear_skinny_workspace(const Fp8LinearArgs& args, int multiprocessors);

// sm_80 and later, at most kStreamingTokens tokens. x and W's codes are 16-byte aligned.
constexpr int64_t kStreamingTokens = 32;
Error fp8_linear_streaming(const Fp8LinearArgs& args, int multiprocessors, void* stream);
WorkspaceSize fp8_linear_streaming_workspace(const Fp8LinearArgs& args, int multiprocessors);

SplitK choose_streaming_split(int64_t n, int64_t k, int multiprocessors);

// sm_80 and later. x and W's codes are 16-byte aligned.
Error fp8_linear_mma(const Fp8LinearArgs& args, void* stream);

enum class Fp8Kernel { kNone, kSkinny, kStreaming, kWarpgroup, kMma };
// kNone where the wanted kernel does not take so many tokens, or the device has not what it needs.
Fp8Kernel choose_fp8_kernel(Kernel wanted, int64_t tokens, const DeviceInfo& device);

}  // namespace fdq::cuda
