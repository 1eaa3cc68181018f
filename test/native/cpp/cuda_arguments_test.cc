// Which kernel a product takes, how much workspace it asks for, and which arguments it refuses.
#include <cstring>

#include "cuda/emulator/emulator.h"
#include "cuda/fp8_linear.cuh"
#include "cuda/weight_only.cuh"
#include "cuda_workspace.h"
#include "linear_support.h"

namespace fdq::test {
namespace {

using cuda::Fp8Kernel;
using cuda::Fp8LinearArgs;
using cuda::Kernel;
using cuda::WeightOnlyArgs;
using cuda::WeightOnlyKernel;

void test_fp8_choice() {
  const cuda::DeviceInfo hopper{9, 0, 132, 232448}, ada{8, 9, 128, 101376}, ampere{8, 0, 108, 166912},
      blackwell{10, 0, 148, 232448};
  using cuda::choose_fp8_kernel;
  CHECK(choose_fp8_kernel(Kernel::kAuto, 64, hopper) == Fp8Kernel::kSkinny, "64 tokens on Hopper");
  CHECK(choose_fp8_kernel(Kernel::kAuto, 65, hopper) == Fp8Kernel::kWarpgroup, "65 tokens on Hopper");
  for (const auto& device : {ada, ampere, blackwell}) {
    CHECK(choose_fp8_kernel(Kernel::kAuto, 32, device) == Fp8Kernel::kStreaming, "32 tokens");
    CHECK(choose_fp8_kernel(Kernel::kAuto, 33, device) == Fp8Kernel::kMma, "33 tokens");
    CHECK(choose_fp8_kernel(Kernel::kWarpgroup, 33, device) == Fp8Kernel::kNone, "no wgmma");
    CHECK(choose_fp8_kernel(Kernel::kStreaming, 33, device) == Fp8Kernel::kNone, "too many tokens");
  }
  const auto wide = cuda::choose_warpgroup_tile(4096, 7168, false, 132);
  CHECK(wide.tokens == 256 && wide.rows == 128, "large products take large tiles");
  const auto few_waves = cuda::choose_warpgroup_tile(2048, 7168, false, 132);
  CHECK(few_waves.tokens == 128 && few_waves.rows == 128, "four waves of the largest tile are a sixth empty");
  const auto floats = cuda::choose_warpgroup_tile(4096, 7168, true, 132);
  CHECK(floats.tokens == 128 && floats.rows == 128, "float32 outputs have no room for the largest tile");
  const auto split = cuda::choose_streaming_split(4096, 7168, 108);
  CHECK(split.splits > 1 && split.splits * split.blocks_per_split >= 56, "all of k is shared out");
}

void test_fp8_workspace() {
  Fp8LinearArgs args{};
  args.rule = ActivationRule::kE4M3Token;
  args.x_stride = 4096;
  args.y_stride = 2560;
  args.weight = {WeightFormat::kE4M3, 2560, 4096, 1, 0, nullptr, nullptr, nullptr};
  for (const int major : {8, 9, 10}) {
    emu::device() = {major, 0, 132, 227 * 1024};
    check_workspace_covers_fewer(args, &cuda::fp8_linear_workspace, 600);
  }
}

void test_fp8_refusals() {
  Guarded memory(4096);
  Fp8LinearArgs good{};
  good.x = memory.bytes();
  good.x_scales = memory.floats();
  good.x_scale_stride = 4;
  good.rule = ActivationRule::kE4M3Group128;
  good.tokens = 2;
  good.x_stride = 16;
  good.weight = {WeightFormat::kE4M3, 16, 16, kTile, kTile, memory.bytes(), memory.floats(), nullptr};
  good.y = memory.bytes();
  good.y_element = ElementType::kBFloat16;
  good.y_stride = 16;
  const auto refuse = [](const Fp8LinearArgs& args, const char* text) {
    const cuda::Error error = cuda::fp8_linear(args, nullptr);
    CHECK(error != nullptr && std::strstr(error, text) != nullptr, "expected '%s', got '%s'", text,
          error == nullptr ? "no error" : error);
  };
  emu::device() = {9, 0, 3, 227 * 1024};
  Fp8LinearArgs bad = good;
  bad.weight.format = WeightFormat::kInt8;
  refuse(bad, "e4m3");
  bad = good;
  bad.x_stride = 24;
  refuse(bad, "multiples of 16");
  bad = good;
  bad.y_stride = 8;
  refuse(bad, "impossible shape");
  bad = good;
  bad.tokens = cuda::kMostCallTokens + 1;
  refuse(bad, "4194240 tokens");
  bad = good;
  bad.rule = ActivationRule::kE4M3Token;
  refuse(bad, "scale a row");
  bad = good;
  bad.x_scale_stride = 2;
  refuse(bad, "stride of x's scales");
  bad = good;
  bad.rule = ActivationRule::kInt8Token;
  refuse(bad, "rounded to e4m3");
  refuse(good, "workspace");
  emu::device() = {7, 5, 3, 64 * 1024};
  refuse(good, "8.0");
}

void test_weight_only_choice() {
  const cuda::DeviceInfo hopper{9, 0, 132, 232448}, ampere{8, 0, 108, 166912}, blackwell{10, 0, 148, 232448};
  WeightOnlyArgs args{};
  args.weight = {WeightFormat::kInt4, 4096, 4096, 1, 128, nullptr, nullptr, nullptr};
  args.x_stride = 4096;
  const auto choose = [&](int64_t tokens, const cuda::DeviceInfo& device, Kernel wanted = Kernel::kAuto) {
    args.tokens = tokens;
    args.kernel = wanted;
    return cuda::choose_weight_only_kernel(args, device);
  };
  CHECK(choose(64, hopper) == WeightOnlyKernel::kStreaming, "64 tokens");
  CHECK(choose(128, hopper) == WeightOnlyKernel::kStreaming, "32 tiles are too few");
  CHECK(choose(512, hopper) == WeightOnlyKernel::kWarpgroup, "128 tiles are one wave");
  CHECK(choose(513, hopper) == WeightOnlyKernel::kWarpgroup, "too many tokens to stream");
  CHECK(choose(513, hopper, Kernel::kStreaming) == WeightOnlyKernel::kNone, "too many tokens to stream");
  args.x_stride = 4097;
  CHECK(choose(64, hopper) == WeightOnlyKernel::kMma, "TMA cannot read such rows");
  CHECK(choose(64, hopper, Kernel::kWarpgroup) == WeightOnlyKernel::kNone, "TMA cannot read such rows");
  args.x_stride = 4096;
  args.weight.group_k = 96;
  CHECK(choose(64, hopper) == WeightOnlyKernel::kMma, "groups that are not of chunks");
  args.weight.group_k = 128;
  for (const auto& device : {ampere, blackwell}) {
    CHECK(choose(1, device) == WeightOnlyKernel::kMma, "no wgmma");
    CHECK(choose(1, device, Kernel::kStreaming) == WeightOnlyKernel::kNone, "no wgmma");
  }
}

void test_weight_only_workspace() {
  WeightOnlyArgs args{};
  args.x_element = ElementType::kBFloat16;
  args.y_stride = 2560;
  args.weight = {WeightFormat::kInt4, 2560, 4096, 1, 128, nullptr, nullptr, nullptr};
  for (const int major : {8, 9, 10}) {
    for (const int64_t x_stride : {4096, 4097}) {
      emu::device() = {major, 0, 132, 227 * 1024};
      args.x_stride = x_stride;
      check_workspace_covers_fewer(args, &cuda::weight_only_workspace, 600);
    }
  }
}

void test_weight_only_refusals() {
  Guarded memory(4096);
  WeightOnlyArgs good{};
  good.x = memory.bytes();
  good.x_element = ElementType::kBFloat16;
  good.tokens = 2;
  good.x_stride = 64;
  good.weight = {WeightFormat::kInt4, 16, 64, 1, 32, memory.bytes(), memory.floats(), nullptr};
  good.y = memory.bytes();
  good.y_element = ElementType::kBFloat16;
  good.y_stride = 16;
  const auto refuse = [](const WeightOnlyArgs& args, const char* text) {
    const cuda::Error error = cuda::weight_only_linear(args, nullptr);
    CHECK(error != nullptr && std::strstr(error, text) != nullptr, "expected '%s', got '%s'", text,
          error == nullptr ? "no error" : error);
  };
  emu::device() = {9, 0, 3, 227 * 1024};
  const auto refuse_changed = [&](const char* text, const auto& change) {
    WeightOnlyArgs bad = good;
    change(bad);
    refuse(bad, text);
  };
  refuse_changed("int8 or int4", [](auto& a) { a.weight.format = WeightFormat::kE4M3; });
  refuse_changed("bfloat16 or float16", [](auto& a) { a.x_element = ElementType::kFloat32; });
  refuse_changed("impossible shape", [](auto& a) { a.y_stride = 8; });
  refuse_changed("4194240 tokens", [](auto& a) { a.tokens = cuda::kMostCallTokens + 1; });
  refuse_changed("multiple of 32", [](auto& a) { a.weight.group_k = 48; });
  refuse_changed("multiple of 32", [](auto& a) { a.weight.group_n = 128; });
  refuse_changed("group", [](auto& a) {
    a.weight.group_k = 96;
    a.kernel = Kernel::kWarpgroup;
  });
  refuse_changed("zero points", [](auto& a) {
    a.weight.zero_points = static_cast<const int8_t*>(a.x);
    a.weight.format = WeightFormat::kInt8;
  });
  refuse_changed("16 bytes", [](auto& a) { a.weight.scales += 1; });
  refuse_changed("this kernel", [](auto& a) {
    a.kernel = Kernel::kWarpgroup;
    a.x_stride = 65;
  });
  refuse(good, "workspace");
  emu::device() = {7, 5, 3, 64 * 1024};
  refuse(good, "8.0");
}

}  // namespace
}  // namespace fdq::test

int main() {
  using namespace fdq::test;
  test_fp8_choice();
  test_fp8_workspace();
  test_fp8_refusals();
  test_weight_only_choice();
  test_weight_only_workspace();
  test_weight_only_refusals();
  return fdq_test::finish("cuda_arguments_test");
}
