// The kernels that weight_only.cu chooses from. All take arguments that it has checked.
#pragma once

#include "cuda/device.cuh"

namespace fdq::cuda {

// Groups of 32 k, and of chunks of 64 k, are those of the wgmma kernels; the mma kernel takes multiples of
// 32.
constexpr int kChunkK = 64;
constexpr int kNarrowGroup = 32;

// sm_90a. x, its rows and W's codes are 16-byte aligned; groups are of 32 or of a multiple of 64.
constexpr int64_t kWeightOnlyFewTokens = 64;        // up to here kAuto streams
constexpr int64_t kWeightOnlyStreamedTokens = 512;  // the most that the streaming kernel takes
// The most tokens of each of its shapes.
constexpr int64_t kWeightOnlyShapeTokens[] = {16, 32, kWeightOnlyFewTokens, kWeightOnlyStreamedTokens};
Error weight_only_skinny(const WeightOnlyArgs& args, int multiprocessors, void* stream);
WorkspaceSize weight_only_skinny_workspace(const WeightOnlyArgs& args, int multiprocessors);
Error weight_only_warpgroup(const WeightOnlyArgs& args, int multiprocessors, void* stream);

// sm_80 and later, any alignment of x, any groups.
Error weight_only_mma(const WeightOnlyArgs& args, int multiprocessors, void* stream);
// Enough for fewer tokens too.
WorkspaceSize weight_only_mma_workspace(const WeightOnlyArgs& args, int multiprocessors);

enum class WeightOnlyKernel { kNone, kStreaming, kWarpgroup, kMma };
// kNone where the wanted kernel does not take so many tokens, the device, x's alignment or the groups.
WeightOnlyKernel choose_weight_only_kernel(const WeightOnlyArgs& args, const DeviceInfo& device);

// Tiles of the warpgroup kernel.
constexpr int kWeightOnlyTileTokens = 128;
constexpr int kWeightOnlyTileRows = 128;

}  // namespace fdq::cuda
