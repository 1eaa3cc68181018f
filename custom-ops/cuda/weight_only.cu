// y = x W^T with int8 or int4 weights: checks the arguments and chooses the kernel.
#include <algorithm>

#include "cuda/weight_only.cuh"

namespace fdq::cuda {
namespace {

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

Error check(const WeightOnlyArgs& args) {
  const Weight& w = args.weight;
  if (w.format != WeightFormat::kInt8 && w.format != WeightFormat::kInt4) {
    return "weight_only_linear takes int8 or int4 weights";
  }
  if (args.x_element != ElementType::kBFloat16 && args.x_element != ElementType::kFloat16) {
    return "weight_only_linear takes inputs of bfloat16 or float16";
  }
  if (args.tokens < 0 || w.n < 1 || w.k < 1 || args.x_stride < w.k || args.y_stride < w.n) {
    return "weight_only_linear: impossible shape";
  }
  if (args.tokens > kMostCallTokens || w.n > INT32_MAX || w.k > INT32_MAX) {
    return "weight_only_linear: more than 4194240 tokens, or 2^31 - 1 rows or columns";
  }
  if (w.group_n != 1 || w.group_k < 0 || w.group_k % kNarrowGroup != 0) {
    return "weight_only_linear: scales are of rows, or of groups of a multiple of 32";
  }
  if (w.zero_points != nullptr && w.format != WeightFormat::kInt4) {
    return "weight_only_linear: only int4 weights have zero points";
  }
  if (!is_aligned(w.codes) || !is_aligned(w.scales) || !is_aligned(w.zero_points)) {
    return "weight_only_linear: codes, scales and zero points must be multiples of 16 bytes";
  }
  return nullptr;
}

// Tiles of the warpgroup kernel that leave a fifth of the multiprocessors' time or more unused are worse than
// to read W once more for every 128 tokens.
bool fills_waves(const WeightOnlyArgs& args, int multiprocessors) {
  const int64_t tiles =
      ceil_div(args.tokens, kWeightOnlyTileTokens) * ceil_div(args.weight.n, kWeightOnlyTileRows);
  const int64_t waves = ceil_div(tiles, multiprocessors);
  return 5 * tiles >= 4 * waves * multiprocessors;
}

}  // namespace

WeightOnlyKernel choose_weight_only_kernel(const WeightOnlyArgs& args, const DeviceInfo& device) {
  const bool has_chunks = args.weight.group_k == kNarrowGroup || args.weight.group_k % kChunkK == 0;
  const bool has_wgmma = device.major == 9 && is_aligned(args.x) && args.x_stride % 8 == 0 && has_chunks;
  const bool can_stream = has_wgmma && args.tokens <= kWeightOnlyStreamedTokens;
  switch (args.kernel) {
    case Kernel::kStreaming:
      return can_stream ? WeightOnlyKernel::kStreaming : WeightOnlyKernel::kNone;
    case Kernel::kWarpgroup:
      return has_wgmma ? WeightOnlyKernel::kWarpgroup : WeightOnlyKernel::kNone;
    case Kernel::kMma:
      return WeightOnlyKernel::kMma;
    case Kernel::kAuto:
      break;
  }
  if (!has_wgmma) return WeightOnlyKernel::kMma;
  if (args.tokens <= kWeightOnlyFewTokens) return WeightOnlyKernel::kStreaming;
  return can_stream && !fills_waves(args, device.multiprocessors) ? WeightOnlyKernel::kStreaming
                                                                  : WeightOnlyKernel::kWarpgroup;
}

WorkspaceSize weight_only_workspace(const WeightOnlyArgs& args) {
  DeviceInfo device{};
  if (check(args) != nullptr || device_info(&device) != nullptr) return {0, 0};
  if (args.kernel == Kernel::kWarpgroup) return {0, 0};
  if (choose_weight_only_kernel(args, device) == WeightOnlyKernel::kMma) {
    return weight_only_mma_workspace(args, device.multiprocessors);
  }
  WorkspaceSize most{0, 0};
  WeightOnlyArgs fewer = args;
  for (const int64_t limit : kWeightOnlyShapeTokens) {
    fewer.tokens = std::min(args.tokens, limit);
    const WorkspaceSize size = weight_only_skinny_workspace(fewer, device.multiprocessors);
    most = {std::max(most.counters, size.counters), std::max(most.partials, size.partials)};
  }
  return most;
}

Error weight_only_linear(const WeightOnlyArgs& args, void* stream) {
  if (const Error error = check(args)) return error;
  if (args.tokens == 0) return nullptr;
  DeviceInfo device{};
  if (const Error error = device_info(&device)) return error;
  if (device.major < 8) return "weight_only_linear needs compute capability 8.0";
  if (!fits(weight_only_workspace(args), args.workspace.size)) {
    return "weight_only_linear: the workspace is too small";
  }
  switch (choose_weight_only_kernel(args, device)) {
    case WeightOnlyKernel::kStreaming:
      return weight_only_skinny(args, device.multiprocessors, stream);
    case WeightOnlyKernel::kWarpgroup:
      return weight_only_warpgroup(args, device.multiprocessors, stream);
    case WeightOnlyKernel::kMma:
      return weight_only_mma(args, device.multiprocessors, stream);
    case WeightOnlyKernel::kNone:
      break;
  }
  return "weight_only_linear: this kernel does not take so many tokens, or not this device, alignment or "
         "group";
}

}  // namespace fdq::cuda
