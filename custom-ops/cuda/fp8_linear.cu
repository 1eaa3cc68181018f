// y = x W^T with e4m3 on both sides: checks the arguments and chooses the kernel.
#include <algorithm>

#include "cuda/fp8_linear.cuh"

namespace fdq::cuda {
namespace {

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

Error check(const Fp8LinearArgs& args) {
  const Weight& w = args.weight;
  if (w.format != WeightFormat::kE4M3) return "fp8_linear takes e4m3 weights";
  if (args.tokens < 0 || w.n < 1 || w.k < 1 || args.x_stride < w.k || args.y_stride < w.n) {
    return "fp8_linear: impossible shape";
  }
  if (args.tokens > kMostCallTokens || w.n > INT32_MAX || w.k > INT32_MAX) {
    return "fp8_linear: more than 4194240 tokens, or 2^31 - 1 rows or columns";
  }
  if (args.x_stride % 16 != 0 || !is_aligned(args.x) || !is_aligned(w.codes)) {
    return "fp8_linear: x, its stride and the codes must be multiples of 16 bytes";
  }
  const bool has_tiles = w.group_n == kTile && w.group_k == kTile;
  const bool has_rows = w.group_n == 1 && w.group_k == 0;
  if (args.rule == ActivationRule::kE4M3Group128) {
    if (!has_tiles) return "fp8_linear: inputs in groups of 128 go with weights in tiles of 128 x 128";
    if (args.x_scale_stride < args.tokens || args.x_scale_stride % 4 != 0 || !is_aligned(args.x_scales)) {
      return "fp8_linear: the stride of x's scales must be a multiple of 4, at least the tokens";
    }
    return nullptr;
  }
  if (args.rule != ActivationRule::kE4M3Token && args.rule != ActivationRule::kE4M3Static) {
    return "fp8_linear: inputs are rounded to e4m3 by group, by token or with one scale";
  }
  return has_rows ? nullptr : "fp8_linear: inputs with a scale a token go with weights with a scale a row";
}

bool is_hopper(const DeviceInfo& device) { return device.major == 9; }

}  // namespace

WarpgroupTile choose_warpgroup_tile(int64_t tokens, int64_t n, bool is_wide, int multiprocessors) {
  // A block's time per 128 k: of 128 x 128, 40. 256 x 128 read less for each product (DeepGEMM measured 7 to
  // 20% more with them, its pull requests 74 and 81), but leave no room for float32 outputs; small tiles are
  // bound by their copies.
  struct Candidate {
    WarpgroupTile tile;
    int64_t cost;
  };
  constexpr Candidate kCandidates[] = {{{128, 128}, 40}, {{256, 128}, 74}, {{64, 64}, 16}, {{64, 32}, 12}};
  WarpgroupTile best = kCandidates[0].tile;
  int64_t least = INT64_MAX;
  for (const Candidate& each : kCandidates) {
    if (is_wide && each.tile.tokens == 256) continue;
    const int64_t tiles = ceil_div(tokens, each.tile.tokens) * ceil_div(n, each.tile.rows);
    const int64_t cost = ceil_div(tiles, multiprocessors) * each.cost;
    if (cost < least) {
      least = cost;
      best = each.tile;
    }
  }
  return best;
}

Fp8Kernel choose_fp8_kernel(Kernel wanted, int64_t tokens, const DeviceInfo& device) {
  const Fp8Kernel few = is_hopper(device)            ? Fp8Kernel::kSkinny
                        : tokens <= kStreamingTokens ? Fp8Kernel::kStreaming
                                                     : Fp8Kernel::kNone;
  switch (wanted) {
    case Kernel::kStreaming:
      return tokens <= (is_hopper(device) ? kSkinnyTokens : kStreamingTokens) ? few : Fp8Kernel::kNone;
    case Kernel::kWarpgroup:
      return is_hopper(device) ? Fp8Kernel::kWarpgroup : Fp8Kernel::kNone;
    case Kernel::kMma:
      return Fp8Kernel::kMma;
    case Kernel::kAuto:
      break;
  }
  if (is_hopper(device)) return tokens <= kSkinnyTokens ? Fp8Kernel::kSkinny : Fp8Kernel::kWarpgroup;
  return tokens <= kStreamingTokens ? Fp8Kernel::kStreaming : Fp8Kernel::kMma;
}

Fp8Product describe_product(const Fp8LinearArgs& args) {
  Fp8Product product{};
  product.x_scales = args.rule == ActivationRule::kE4M3Static ? nullptr : args.x_scales;
  product.w_scales = args.weight.scales;
  product.bias = args.bias;
  product.y = args.y;
  product.x_scale_stride = args.x_scale_stride;
  product.y_stride = args.y_stride;
  product.tokens = static_cast<int>(args.tokens);
  product.n = static_cast<int>(args.weight.n);
  product.k_blocks = static_cast<int>(ceil_div(args.weight.k, kTile));
  product.static_scale = args.static_scale;
  product.y_element = args.y_element;
  return product;
}

// Only the kernels for few tokens need one.
WorkspaceSize fp8_linear_workspace(const Fp8LinearArgs& args) {
  DeviceInfo device{};
  if (check(args) != nullptr || device_info(&device) != nullptr) return {0, 0};
  if (args.kernel == Kernel::kWarpgroup || args.kernel == Kernel::kMma) return {0, 0};
  Fp8LinearArgs few = args;
  few.tokens = std::min(args.tokens, is_hopper(device) ? kSkinnyTokens : kStreamingTokens);
  return is_hopper(device) ? fp8_linear_skinny_workspace(few, device.multiprocessors)
                           : fp8_linear_streaming_workspace(few, device.multiprocessors);
}

Error fp8_linear(const Fp8LinearArgs& args, void* stream) {
  if (const Error error = check(args)) return error;
  if (args.tokens == 0) return nullptr;
  DeviceInfo device{};
  if (const Error error = device_info(&device)) return error;
  if (device.major < 8) return "fp8_linear needs compute capability 8.0";
  if (!fits(fp8_linear_workspace(args), args.workspace.size)) return "fp8_linear: the workspace is too small";
  switch (choose_fp8_kernel(args.kernel, args.tokens, device)) {
    case Fp8Kernel::kSkinny:
      return fp8_linear_skinny(args, device.multiprocessors, stream);
    case Fp8Kernel::kStreaming:
      return fp8_linear_streaming(args, device.multiprocessors, stream);
    case Fp8Kernel::kWarpgroup:
      return fp8_linear_warpgroup(args, device.multiprocessors, stream);
    case Fp8Kernel::kMma:
      return fp8_linear_mma(args, stream);
    case Fp8Kernel::kNone:
      break;
  }
  return "fp8_linear: this kernel does not take so many tokens, or not this device";
}

}  // namespace fdq::cuda
